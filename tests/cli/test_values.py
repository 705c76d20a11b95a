"""Values that no run and no verb can use are refused in one line, before memory is taken."""

from __future__ import annotations

import resource
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import run_arlm

from tools.fuzz.originals import write_originals

HUGE = 10**20
FIT = "fit --config config.yaml "
# The content of a file, and what the line about it says.
FILES = {
    "cyclic.yaml": (
        "class_path: TextFile\ninit_args: &a {path: *a}\n",
        "an alias names what it is in",
    ),
    "laughs.yaml": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)),
        "its aliases make more than 100000 values",
    ),
    "deep.yaml": ("a: " + "[" * 5000, "nested too deeply"),
    "large.yaml": ("# " + "x" * 1_000_000, "more than 1000000"),
}
REFUSED: dict[str, str] = {
    # What no tensor and no machine holds.
    f"sample rnn.ckpt -n {HUGE}": f"-n: {HUGE} does not fit",
    "sample rnn.ckpt -n 1000000001": "-n: 1000000001 is out of range",
    "sample image.ckpt -n 20000": "-n: 20000 is out of range; choose at most 10000",
    f"sample rnn.ckpt --seed {HUGE}": f"--seed: {HUGE} does not fit",
    f"sample rnn.ckpt --max-new-tokens {HUGE}": f"--max-new-tokens: {HUGE} does not fit",
    "sample rnn.ckpt --max-new-tokens 100000000000": "--max-new-tokens: 100000000000 needs about",
    "sample gpt.ckpt --max-new-tokens 100000000000": "--max-new-tokens: 100000000000 needs about",
    f"sample rnn.ckpt --beam {10**10}": f"--beam: {10**10} needs about",
    "sample rnn.ckpt --decoding fixed_point --max-new-tokens 1000000000": "needs about",
    f"translate pair.ckpt dates.txt --batch-size {10**18}": "--batch-size: 1000000000000000000 is out",
    f"translate pair.ckpt dates.txt --beam {10**10}": f"--beam: {10**10} needs about",
    "translate pair.ckpt dates.txt --length-penalty 1e20": "--length-penalty: 1e+20 is out of range",
    f"evaluate pair.ckpt --beam {HUGE}": f"--beam: {HUGE} does not fit",
    "evaluate pair.ckpt --length-penalty nan": "--length-penalty: nan is out of range",
    "sample rnn.ckpt --processors frequency_penalty=1e308": "frequency_penalty: 1e+308 is out of range",
    "sample rnn.ckpt --processors presence_penalty=nan": "presence_penalty: nan is out of range",
    # Empty values, and null characters.
    "sample rnn.ckpt --out ''": "--out: its value is empty",
    "translate pair.ckpt dates.txt --out ''": "--out: its value is empty",
    "score rnn.ckpt ''": "FILE: its value is empty",
    "sample rnn.ckpt --trust ''": "--trust: its value is empty",
    "score rnn.ckpt NULL": "it has a null character",
    "fit --config NULL": "it has a null character",
    # Of a run.
    f"{FIT} --trainer.devices -1": "trainer.devices: -1 means all GPUs",
    f"{FIT} --trainer.devices 100000000": "trainer.devices: 100000000 is out of range",
    f"{FIT} --model.optimizer.lr -1": "model.optimizer.lr: -1.0 is out of range",
    f"{FIT} --model.optimizer.lr 1e308": "model.optimizer.lr: 1e+308 is out of range",
    f"{FIT} --config nan.yaml": "model.optimizer.lr: nan is no value of it",
    f"{FIT} --model.optimizer.betas [2,3]": "model.optimizer: Invalid beta parameter",
    f"{FIT} --data.batch_size null": "data.batch_size: null is no value",
    f"{FIT} --data.seed null": "data.seed: null is no value",
    f"{FIT} --model.net.width null": "model.net.width: null is no value",
    f"{FIT} --samples.n {HUGE}": f"samples.n: {HUGE} is out of range",
    f"{FIT} --seed_everything -1": "seed_everything: -1 is out of range",
    f"{FIT} --trainer.accumulate_grad_batches 0": "trainer.accumulate_grad_batches: 0 is out of range",
    f"{FIT} --trainer.log_every_n_steps 0": "trainer.log_every_n_steps: 0 is out of range",
    f"{FIT} --config null.yaml": "has a null character",
    **{f"fit --config {name}": part for name, (_, part) in FILES.items()},
    **{f"evaluate rnn.ckpt --data {name}": part for name, (_, part) in FILES.items()},
}  # fmt: skip
USED = [  # at the edge of what can be used
    "sample rnn.ckpt --temperature 1e-320 --max-new-tokens 2",
    "sample rnn.ckpt --precision 16 --temperature 1e-9 --max-new-tokens 2",
    "sample rnn.ckpt --precision 16 --processors frequency_penalty=-100 --max-new-tokens 900",
    "sample image.ckpt --sweep temperature=1e-320,1",
    f"sample rnn.ckpt --seed {2**63 - 1} --max-new-tokens 2",
    "translate pair.ckpt dates.txt --temperature 1e-320",
    "translate pair.ckpt dates.txt --length-penalty 10 --beam 300",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("values")
    write_originals(folder)
    for name, (content, _) in FILES.items():
        (folder / name).write_text(content)
    (folder / "nan.yaml").write_text(
        "model: {optimizer: {class_path: torch.optim.AdamW, init_args: {lr: .nan}}}\n"
    )
    (folder / "null.yaml").write_text('trainer: {default_root_dir: "a\\0b"}\n')
    return folder


@contextmanager
def memory(more: int) -> Iterator[None]:
    """At most `more` bytes of address space beyond those in use."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def run(command: str, folder: Path):
    return run_arlm(*(w.replace("NULL", "a\0b") for w in shlex.split(command)), folder=folder)


@pytest.mark.parametrize(("command", "part"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_cannot_be_used_is_refused(command: str, part: str, folder: Path) -> None:
    with memory(2**31):
        assert part in run(command, folder).error()


@pytest.mark.parametrize("command", USED)
def test_what_can_be_used_is(command: str, folder: Path) -> None:
    done = run(command, folder)
    assert done.code == 0, done.err
