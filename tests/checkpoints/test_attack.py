"""Crafted and damaged checkpoints execute nothing, write nothing, and are refused in one line."""

from __future__ import annotations

import copy
import json
import os
import re
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import run_arlm
from crafted import (
    KINDS,
    Content,
    Originals,
    archive,
    members_of,
    part,
    with_entry,
    write,
    wrong_data,
)

import arlm
from arlm import checkpoints
from arlm.adapters import LogitArithmetic
from arlm.errors import UserError
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.tokenizers.untrusted import TRIAL
from arlm.training.module import AutoregressiveModule
from datamodules.digits import Digits
from datamodules.text_file import TextFile

SECONDS = 10  # for one refusal; a hang is what this is about
VERBS = ("sample", "evaluate", "compare")
PACKAGE = """
from pathlib import Path
Path({canary!r}).touch()
from arlm.domains import ImageDomain
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from datamodules.digits import Digits
class Network(PixelCNN): pass
class Text(LSTMLanguageModel): pass
class Pictures(ImageDomain): pass
class Data(Digits): pass
"""
CLASS = r"is not arlm's; if you trust|that can be built; use|its description of \w+ is invalid|is missing|is defined in"
REASONS = {  # by which check a kind is refused, where any other would hide that it is gone
    "functions_and_foreign_classes": CLASS,
    "wrong_class_paths": f"{CLASS}|RecurrentLanguageModel cannot be built",
    "wrong_kinds": f"{CLASS}|which does not fit",
    "wrong_networks_in_networks": (
        f"{CLASS}|which does not fit|its spec is invalid|for other data than the network|^model.net|"
        "are nested in it|cannot be built|much larger network|not a valid description"
    ),
    "not_signed": "is damaged",
    "flipped_bits": "the weight .* is damaged",
    "truncated": "truncated or no checkpoint",
}
# What Python reports when a program is started, a connection is made or a file is changed.
EVENTS = {
    *(
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "subprocess.Popen",
        "pty.spawn",
    ),
    *("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "shutil.copyfile", "shutil.rmtree", "socket.connect", "socket.getaddrinfo"),
}
seen: list[str] = []
watching = False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not watching:
        return
    if "comparison.html" in str(arguments[0]) or (event == "os.mkdir" and arguments[0] == "."):
        return  # `compare` first tries whether it may write the page that it is asked for
    if event == "open" and isinstance(arguments[0], str) and os.path.isdir(arguments[0]):
        return  # `check_writable` tries a file without a name in the folder of --out
    if event == "subprocess.Popen" and TRIAL in arguments[1]:
        return  # a tokenizer's JSON is read by a process of its own first
    if event == "open" and isinstance(arguments[0], int):
        return  # the pipe to it: a descriptor that is open already
    if event in EVENTS:
        seen.append(f"{event} {arguments}")
    if event == "open" and isinstance(arguments[2], int) and arguments[0] != os.devnull:
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        if arguments[2] & writes:
            seen.append(f"open {arguments}")


sys.addaudithook(watch)  # stays for the rest of the process, hence the switch


def fit(folder: Path, net: Any, data: Any) -> Path:
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_steps=10,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(AutoregressiveModule(data.spec, net), data)
    trainer.save_checkpoint(folder / "sound.ckpt")
    return folder / "sound.ckpt"


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    """Two sound checkpoints, and a package that is not arlm's."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    folder = tmp_path_factory.mktemp("originals")
    for name in ("image", "text", "nested", "site", "canary"):
        (folder / name).mkdir()
    net = partial(PixelCNN, width=4, depth=1, head_width=4)
    image = fit(folder / "image", net, Digits())
    (folder / "text" / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    data = TextFile(str(folder / "text" / "text.txt"), "character", length=16, batch_size=4)
    text = fit(folder / "text", partial(LSTMLanguageModel, width=8, depth=2), data)
    net = arlm.load(text).net
    both = LogitArithmetic(net.spec, [lambda _: net, lambda _: copy.deepcopy(net)], [0.5, 0.5])
    nested = checkpoints.save(folder / "nested" / "sound.ckpt", both, arlm.load(text))
    canary = folder / "canary" / "ran"
    (folder / "site" / "elsewhere.py").write_text(PACKAGE.format(canary=str(canary)))
    patch.undo()
    return Originals(image, text, nested, canary, "elsewhere")


@pytest.fixture
def empty(tmp_path: Path, originals: Originals, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder and home; what runs in it is watched."""
    site = originals.canary.parents[1] / "site"
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "work"
    sys.modules.pop(originals.package, None)


def files(*folders: Path) -> set[tuple[str, int]]:
    """Everything in some folders, with the time of a file's last change."""
    found = [path for folder in folders for path in [folder, *folder.rglob("*")]]
    return {(str(p), 0 if p.is_dir() else p.lstat().st_mtime_ns) for p in found}


def refusal(action: Any, folders: tuple[Path, ...], originals: Originals) -> Any:
    """Run an action that is expected to change nothing; returns what it returns."""
    global watching
    before, started = files(*folders), time.process_time()
    seen.clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        watching = True
        try:
            result = action()
        finally:
            watching = False
    assert not seen
    assert not originals.canary.exists()
    assert originals.package not in sys.modules
    assert "this" not in sys.modules
    assert "antigravity" not in sys.modules
    assert files(*folders) == before
    assert time.process_time() - started < SECONDS
    assert not [str(w.message) for w in warned]
    return result


def attempt(path: Path) -> str:
    """What `load` says of a checkpoint; empty if it loads."""
    try:
        arlm.load(path)
    except UserError as error:
        return str(error)
    return ""


def check(
    name: str, content: Content, verbs: tuple[str, ...], load: bool, o: Originals, reason: str = ""
) -> list[str]:
    """One crafted checkpoint by `load` and by some verbs; returns what went wrong."""
    failures: list[str] = []
    work = Path.cwd()
    folder = work.parent / "crafted"
    folder.mkdir(exist_ok=True)
    path = folder / "crafted.ckpt"
    write(content, path)
    folders = (work.parent, o.canary.parents[1])
    try:
        if load:
            said = refusal(lambda: attempt(path), folders, o)
            assert said, "it loads"
            assert re.search(reason, said)
            assert len(said.splitlines()) == 1
            assert said.isprintable()
            assert len(said) < 1000
        for verb in verbs:
            done = refusal(lambda: run_arlm(verb, path), folders, o)  # noqa: B023
            assert done.error() == done.err.strip()
            assert not done.out
    except BaseException as error:  # panics of libraries too
        if isinstance(error, KeyboardInterrupt):
            raise
        failures.append(f"{name[:60]}: {type(error).__name__}: {str(error)[:300]}")
    finally:
        if path.is_dir():
            for child in sorted(path.rglob("*"), reverse=True):
                child.rmdir()
            path.rmdir()
        else:
            path.unlink()
    return failures


def test_the_sound_ones_load_and_nothing_is_written(originals: Originals, empty: Path) -> None:
    for path in (originals.image, originals.text, originals.nested):
        assert run_arlm("sample", path, "-n", "1", "--out", empty / "x.png").code in (0, 2)
        assert refusal(lambda: attempt(path), (empty.parent, path.parent), originals) == ""  # noqa: B023
    assert run_arlm("evaluate", originals.image).code == 0
    assert run_arlm("compare", originals.image).code == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_crafted_checkpoint_is_one_line(kind: str, originals: Originals, empty: Path) -> None:
    every = kind in ("functions_and_foreign_classes", "no_checkpoints")
    failures = []
    for index, (name, content) in enumerate(KINDS[kind](originals)):
        verbs = VERBS if every else (VERBS[index % 3],) if index % 4 == 0 else ()
        failures += check(name, content, verbs, True, originals, REASONS.get(kind, ""))
    assert not failures, "\n".join(failures)


def test_a_crafted_data_set_is_one_line(originals: Originals, empty: Path) -> None:
    failures = []
    for name, content in wrong_data(originals):
        failures += check(name, content, ("evaluate", "compare"), False, originals)
    assert not failures, "\n".join(failures)


def test_there_are_many_of_them(originals: Originals) -> None:
    names = [(kind, name) for kind in KINDS for name, _ in KINDS[kind](originals)]
    names += [("data", name) for name, _ in wrong_data(originals)]
    assert len(names) >= 200
    assert len({kind for kind, _ in names}) == len(KINDS) + 1
    counts = {kind: sum(k == kind for k, _ in names) for kind in KINDS}
    assert counts["flipped_bits"] >= 50
    assert counts["truncated"] >= 15
    assert min(counts.values()) >= 9


def test_more_members_of_the_archive_are_not_read(originals: Originals, empty: Path) -> None:
    path, folders = empty / "more.ckpt", (empty.parent, originals.canary.parents[1])
    path.write_bytes(archive(members_of(originals.image)))
    assert attempt(path) == ""  # an archive made by hand is as good as any
    for name in ("sound/evil.py", "evil.py", "../outside.txt", "/outside.txt", "sound/data.pkl"):
        path.write_bytes(originals.image.read_bytes())
        with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as file:
            warnings.simplefilter("ignore")  # that a name occurs twice
            file.writestr(name, f"open({str(originals.canary)!r}, 'w')")
        refusal(
            lambda: attempt(path), folders, originals
        )  # reads it as if it were not there, or refuses


def test_damaged_pickles_load_the_same_or_are_refused(originals: Originals, empty: Path) -> None:
    noise, content = np.random.default_rng(2), originals.image.read_bytes()
    expected = arlm.load(originals.image)
    folders = (empty, originals.canary.parents[1])
    size = content.index(b"archive/.format_version")
    for place in noise.integers(64, size, 80):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(noise.integers(8))
        path = empty / "damaged.ckpt"
        path.write_bytes(damaged)
        if not refusal(lambda: attempt(path), folders, originals):  # noqa: B023
            found = arlm.load(path)
            assert found[2:] == expected[2:]
            for name, weight in expected.net.state_dict().items():
                assert torch.equal(found.net.state_dict()[name], weight)


FRAGMENTS = [
    *(
        "",
        "x",
        "[]",
        "5",
        "a: b: c",
        "\t",
        "{",
        "class_path",
        "class_path:",
        "? [",
        "- [" * 3000,
        "&a [*a]",
    ),
    *("class_path: 5", "class_path: [a]", "class_path: os.system\ninit_args: {command: touch x}"),
    *(
        "class_path: elsewhere.Data",
        "class_path: datamodules.digits.images",
        "class_path: arlm.core.Spec",
    ),
    *(
        f"class_path: datamodules.digits.Digits\ninit_args: {x}"
        for x in ("5", "x", "[1]", "{1: 2}", "{x: 1}")
    ),
    *(
        f"class_path: datamodules.digits.Digits\ninit_args: {{batch_size: {x}}}"
        for x in ("x", "-1", "[1]")
    ),
    "class_path: 2020-99-99",
    "!!python/object/apply:os.system ['touch x']",
    "class_path: !!python/name:os.system",
    "class_path: datamodules.digits.Digits\ninit_args: !!python/object/apply:os.system ['touch x']",
    "class_path: !!int x",
    "[" * 20000,
    "a0: &a0 [x, x]\n"
    + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    + "class_path: *a59",
    "class_path: arlm.\x00core",
    "class_path: datamodules.mnist.MNIST\ninit_args: {variant: MNIST, data_dir: /nowhere, levels: x}",
]


def test_a_bad_fragment_is_one_line(originals: Originals, empty: Path) -> None:
    fragment = empty / "fragment.yaml"
    folders = (empty.parent, originals.canary.parents[1])
    for text in FRAGMENTS:
        fragment.write_text(text)
        for verb in ("evaluate", "compare"):
            done = refusal(
                lambda: run_arlm(verb, originals.image, "--data", fragment),  # noqa: B023
                folders,
                originals,
            )
            assert done.error() == done.err.strip(), text[:80]


def test_other_records_of_a_checkpoint_may_be_anything(originals: Originals, empty: Path) -> None:
    for value in (5, None, [], {"tokens": "x", "seconds": None}, torch.zeros(2)):
        contents = torch.load(originals.image, weights_only=True) | {"effort": value}
        torch.save(contents, empty / "odd.ckpt")
        done = run_arlm("compare", "odd.ckpt", "--json")
        assert done.code == 0
        assert json.loads(done.out)["models"][0]["trained_tokens"] == 0


def test_a_package_loads_once_it_is_trusted(originals: Originals, empty: Path) -> None:
    network, domain = part(originals.image, "network"), part(originals.image, "domain")
    network["class_path"], domain["class_path"] = "elsewhere.Network", "elsewhere.Pictures"
    path = write(with_entry(originals.image, network=network, domain=domain), empty / "own.ckpt")
    for trusted in ([], ["else"], ["elsewhere.Network"], ["arlm"]):
        with pytest.raises(UserError) as caught:
            arlm.load(path, trusted=trusted)
        assert 'add --trust elsewhere.py (in Python: trusted=["elsewhere.py"])' in str(caught.value)
        assert not originals.canary.exists()
    try:
        net, found, *_ = arlm.load(path, trusted=["elsewhere"])
        assert type(net).__name__ == "Network"
        assert type(found).__name__ == "Pictures"
        assert originals.canary.exists()
    finally:
        originals.canary.unlink(missing_ok=True)


def test_a_network_much_larger_than_its_weights_is_not_built(
    originals: Originals, empty: Path
) -> None:
    for name, value in {"width": 2000, "depth": 10**5}.items():
        network = part(originals.text, "network")
        network["init_args"][name] = value
        path = write(with_entry(originals.text, network=network), empty / "large.ckpt")
        assert "much larger network" in attempt(path)


def test_a_network_in_a_network_loads_once_it_is_trusted(originals: Originals, empty: Path) -> None:
    network = part(originals.nested, "network")
    network["init_args"]["nets"][1]["class_path"] = "elsewhere.Text"
    path = write(with_entry(originals.nested, network=network), empty / "own.ckpt")
    assert '(in Python: trusted=["elsewhere.py"])' in attempt(path)
    assert not originals.canary.exists()
    try:
        assert type(arlm.load(path, trusted=["elsewhere"]).net.nets[1]).__name__ == "Text"
    finally:
        originals.canary.unlink(missing_ok=True)


def test_sixteen_networks_within_one_another_load(originals: Originals, empty: Path) -> None:
    net = arlm.load(originals.text).net
    for _ in range(16):
        net = LogitArithmetic(net.spec, [lambda _, net=net: net], [0.5])
    path = checkpoints.save(empty / "deep.ckpt", net, arlm.load(originals.text))
    tokens = torch.zeros(1, 16).long()
    assert torch.equal(arlm.load(path).net(tokens), net(tokens))
    deeper = LogitArithmetic(net.spec, [lambda _: net], [0.5])
    path = checkpoints.save(empty / "deep.ckpt", deeper, arlm.load(originals.text))
    assert "more than 16 descriptions are nested in it" in attempt(path)


def test_a_long_message_is_cut_in_its_middle(originals: Originals, empty: Path) -> None:
    contents = with_entry(originals.image)
    contents["arlm"]["format"] = ["x" * 10**6] * 100
    said = attempt(write(contents, empty / "long.ckpt"))
    assert "has format" in said
    assert said.endswith("use the version of arlm that wrote it")
    assert len(said) < 1000
    assert str(UserError("a\nb\x1b[2J  " + "x" * 10**4 + " mend it")).startswith("a b\\x1b[2J ")
