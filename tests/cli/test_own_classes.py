"""Whatever `fit` accepts from a user's module, every verb accepts with --trust, and nothing without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import run_arlm
from PIL import Image

import arlm
from arlm.errors import UserError
from arlm.inference.runs import open_run
from tools.try_package import DATA

NETWORK = """
import dataclasses

from arlm.models.pixelcnn import PixelCNN
from arlm.sampling.processors import LogitsProcessor


class Mine(PixelCNN):
    def __init__(self, spec, width: int = 4):
        super().__init__(spec, width=width, depth=1, head_width=4)


@dataclasses.dataclass(frozen=True)
class Colder(LogitsProcessor):
    by: float = 2.0

    def __call__(self, logits, history):
        return logits * self.by


class Plain(LogitsProcessor):
    def __call__(self, logits, history):
        return logits
"""
CONFIGURATION = """
data: {class_path: mystripes.Stripes}
model:
  net: {class_path: mynet.Mine, init_args: {width: 3}}
  sampler: {processors: [{class_path: mynet.Colder}]}
trainer: {max_steps: 2, accelerator: cpu}
samples: {n: 2}
"""
MODULES = ("mynet", "mystripes")


def forget() -> None:
    """Drop the user's modules, as a new process would."""
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a network, a data module and a processor, and a run of them."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "mynet.py").write_text(NETWORK)
    (folder / "mystripes.py").write_text(DATA)
    (folder / "own.yaml").write_text(CONFIGURATION)
    sys.path.append(str(folder))  # as `entry` does with the working folder
    try:
        done = run_arlm("fit", "--config", "own.yaml", folder=folder)
    finally:
        sys.path.remove(str(folder))
        forget()
    assert done.code == 0, done.err
    trust = "--trust mynet --trust mystripes"
    assert f"next  arlm sample runs/own {trust}\n" in done.err
    assert f"arlm evaluate runs/own {trust}\n" in done.err
    return folder


@pytest.fixture
def elsewhere(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another working folder, with a picture to score."""
    monkeypatch.chdir(tmp_path)
    Image.new("L", (4, 4)).save("picture.png")
    yield tmp_path
    forget()


def verbs(home: Path) -> dict[str, list[object]]:
    run = home / "runs" / "own"
    return {
        "sample": ["sample", run, "--out", "drawn.png"],
        "evaluate": ["evaluate", run, "--baselines"],
        "score": ["score", run, "picture.png", "--out", "surprise.png"],
        "compare": ["compare", f"own={run}", "--out", "compared.html"],
    }


@pytest.mark.parametrize("verb", ["sample", "evaluate", "score", "compare"])
def test_a_verb_imports_own_classes_only_when_they_are_trusted(
    verb: str, home: Path, elsewhere: Path
) -> None:
    command = verbs(home)[verb]
    error = run_arlm(*command).error()
    missing = "mynet.py" if "mynet" in error else "mystripes.py"
    assert f"is not arlm's; if you trust it, add --trust {missing}" in error
    assert not set(MODULES) & set(sys.modules)
    trust = [part for name in MODULES for part in ("--trust", home / f"{name}.py")]
    done = run_arlm(*command, *trust)
    assert done.code == 0, done.err


def test_a_module_is_trusted_by_name_where_it_can_be_imported(
    home: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [*verbs(home)["evaluate"], "--trust", "mynet", "--trust", "mystripes"]
    error = run_arlm(*command).error()
    assert "No module named 'mynet'" in error
    assert "--trust FOLDER/mynet.py" in error
    monkeypatch.syspath_prepend(home)
    done = run_arlm(*command)
    assert done.out.startswith("Stripes, test split: ")  # data without a name has that of its class


def test_a_trusted_file_is_not_imported_unless_the_checkpoint_names_it(
    home: Path, elsewhere: Path
) -> None:
    (elsewhere / "trap.py").write_text("raise SystemExit")
    trust = [str(home / "mynet.py"), str(elsewhere / "trap.py")]
    assert type(arlm.load(home / "runs/own", trusted=trust).net).__name__ == "Mine"


def test_own_processors_on_the_command_line(home: Path, elsewhere: Path) -> None:
    """By class path and only if trusted, with the values that `fit` takes from a configuration."""
    trust = [part for name in MODULES for part in ("--trust", home / f"{name}.py")]
    command = ["sample", home / "runs/own", *trust, "-n", 4, "--out", "drawn.png"]

    def drawn(*more: object) -> bytes:
        done = run_arlm(*command, *more)
        assert done.code == 0, done.err
        return Path("drawn.png").read_bytes()

    plain = drawn()
    assert drawn("--processors", "mynet.Colder=1") == plain
    assert drawn("--processors", "mynet.Colder") == drawn("--temperature", 0.5) != plain
    chosen = drawn("--processors", "mynet.Colder:by=4,top_k=3")
    assert chosen == drawn("--processors", "temperature=0.25,top_k=3")
    done = run_arlm(*command, "--sweep", "mynet.Colder=1,4")
    assert done.code == 0, done.err
    for name, message in {
        "gone.Colder": "--processors: it names the class gone.Colder, which is not arlm's; if you trust it, add --trust gone.py",
        "mynet.Mine": "--processors: mynet.Mine is not a LogitsProcessor that can be built",
        "mynet.Colder=warm": "--processors: mynet.Colder needs a number for by, not 'warm'",
        "mynet.Colder:twice=2": "--processors: mynet.Colder has no field 'twice'; its fields: by",
        "mynet.Plain": "--processors: mynet.Plain is no dataclass; write @dataclass(frozen=True)",
        "Colder": "typical, xtc, or give the class path of one of yours",
    }.items():
        assert message in run_arlm(*command, "--processors", name).error()


def test_a_processor_is_imported_only_when_it_is_trusted(home: Path, elsewhere: Path) -> None:
    digits = ["--config", "digits_pixelcnn", "--model.net.width", "4", "--trainer.max_steps", "1"]
    assert run_arlm("fit", *digits, "--samples.n", "0", "--run-name", "digits").code == 0
    command = ["sample", "runs/digits", "--processors", "mynet.Colder=2"]
    assert "add --trust mynet.py" in run_arlm(*command).error()
    assert "mynet" not in sys.modules
    assert run_arlm(*command, "--trust", home / "mynet.py").code == 0


OWN_CHECKPOINTS = {
    "pretrained": "net: {class_path: arlm.adapters.pretrained, init_args: {checkpoint: RUN}}",
    "distillation": """
  net: {class_path: mynet.Mine}
  objective: {class_path: arlm.training.objectives.Distillation, init_args: {teacher: RUN}}""",
    "nested": """
  net:
    class_path: arlm.adapters.LogitArithmetic
    init_args:
      nets:
      - {class_path: arlm.adapters.pretrained, init_args: {checkpoint: RUN}}
      - {class_path: arlm.adapters.pretrained, init_args: {checkpoint: RUN, trusted: [mystripes]}}
      weights: [0.5, 0.5]""",
}


@pytest.mark.parametrize("kind", OWN_CHECKPOINTS)
def test_fit_reads_checkpoints_of_own_classes_once_they_are_trusted(
    kind: str, home: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the configuration names is imported in any case; a checkpoint of it is no configuration."""
    monkeypatch.syspath_prepend(home)
    model = OWN_CHECKPOINTS[kind].replace("RUN", str(home / "runs/own"))
    Path(f"{kind}.yaml").write_text(
        f"data: {{class_path: mystripes.Stripes}}\nmodel:\n  {model}\n"
        "trainer: {max_steps: 1, accelerator: cpu}\nsamples: {n: 0}\n"
    )
    command = ["fit", "--config", f"{kind}.yaml"]
    for some in ([], ["--trust", "mystripes"]):
        error = run_arlm(*command, *some).error()
        assert "mynet.Mine, which is not arlm's; if you trust it, add --trust mynet.py" in error
    trust = ["--trust", "mynet", "--trust", home / "mystripes.py"]
    done = run_arlm(*command, *trust)
    assert done.code == 0, done.err
    assert run_arlm("evaluate", f"runs/{kind}", *trust).code == 0


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("gone/mynet.py", "gone/mynet.py' does not exist"),
        ("mynet.py", "mynet.py is missing"),
        ("json.py", "has the name of another module"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_one_line(
    file: str, message: str, home: Path, elsewhere: Path
) -> None:
    (elsewhere / "mynet.py").write_text("import nothing_of_this_name")
    (elsewhere / "json.py").write_text("class Mine: pass")
    path = next((home / "runs").rglob("last.ckpt"))
    contents = torch.load(path, weights_only=True)
    if file == "json.py":
        from arlm.checkpoints.describe import entry_checksum

        entry = contents["arlm"]
        entry["network"] = entry["network"].replace("mynet.Mine", "json.Mine")
        entry["checksum"] = entry_checksum(entry)
    torch.save(contents, "edited.ckpt")
    with pytest.raises(UserError) as caught:
        arlm.load("edited.ckpt", trusted=[file])
    assert message.replace("mynet.py is missing", "mynet.Mine is missing") in str(caught.value)


def test_a_class_of_a_script_is_found_in_the_trusted_file(home: Path, elsewhere: Path) -> None:
    from arlm.checkpoints.describe import entry_checksum

    path = next((home / "runs").rglob("last.ckpt"))
    contents = torch.load(path, weights_only=True)
    entry = contents["arlm"]
    entry["network"] = entry["network"].replace("mynet.Mine", "__main__.Mine")
    entry["checksum"] = entry_checksum(entry)
    torch.save(contents, "script.ckpt")
    assert "add --trust SCRIPT.py" in run_arlm("sample", "script.ckpt").error()
    assert run_arlm("sample", "script.ckpt", "--trust", home / "mynet.py").code == 0


def test_a_fragment_of_an_own_data_module_is_read(home: Path, elsewhere: Path) -> None:
    Path("stripes.yaml").write_text("class_path: mystripes.Stripes\ninit_args: {batch_size: 8}")
    trust = [str(home / f"{name}.py") for name in MODULES]
    run = open_run(str(home / "runs/own"), "stripes.yaml", trust)
    assert type(run.data).__name__ == "Stripes"
    assert run.data.batch_size == 8
