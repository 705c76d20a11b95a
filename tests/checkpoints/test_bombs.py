"""Small checkpoints that ask for much memory, or hide damage: one line, before the memory is taken."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crafted import archive, contents_of, members_of, part, with_entry, write
from peak import peak_growth

import arlm
from arlm import checkpoints
from arlm.errors import UserError
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from datamodules.digits import Digits
from datamodules.text_file import TextFile

LARGE = 4 * 10**8  # bytes that a bomb asks for, at least
MOST = 200 * 2**20  # bytes that refusing one may take


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Networks of images and of text; the first one has some state of an optimizer."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    text = TextFile(str(folder / "text.txt"), "character", length=16, batch_size=4)
    image = Digits()
    nets = {
        "image": PixelCNN(image.spec, width=4, depth=1, head_width=4),
        "lstm": LSTMLanguageModel(text.spec, width=8, depth=2),
        "transformer": TransformerLanguageModel(text.spec, width=8, depth=1, heads=2),
    }
    data = {"image": image, "lstm": text, "transformer": text}
    found = {name: checkpoints.save(folder / name, net, data[name]) for name, net in nets.items()}
    moments = [torch.full((500,), float(index)) for index in range(4)]
    contents = torch.load(found["image"], weights_only=True) | {"optimizer_states": moments}
    torch.save(contents, found["image"])
    return found


class Call:
    """A pickle of it calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def pickle_name(members: dict[str, bytes]) -> str:
    return next(name for name in members if name.endswith("data.pkl"))


def pickled(content: bytes, path: Path, packing: int = zipfile.ZIP_STORED) -> bytes:
    """A checkpoint with another pickle."""
    members = members_of(path)
    return archive(members | {pickle_name(members): content}, packing)


def called(function: Callable[..., Any], *arguments: Any) -> bytes:
    return pickle.dumps({"arlm": Call(function, *arguments)}, protocol=2)


def repeated(opcodes: bytes, count: int, first: bytes = b"") -> bytes:
    """A pickle of a list of many objects, each written as a few opcodes."""
    return b"\x80\x02" + first + b"](" + opcodes * count + b"e."


def compressed(path: Path, ending: str) -> bytes:
    """The members whose names have an ending are compressed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        for name, content in members_of(path).items():
            packs = zipfile.ZIP_DEFLATED if name.endswith(ending) else zipfile.ZIP_STORED
            out.writestr(name, content, packs)
    return file.getvalue()


def long_text(path: Path) -> bytes:
    text = b"X" + LARGE.to_bytes(4, "little") + b"a" * LARGE
    return pickled(b"\x80\x02" + text + b".", path, zipfile.ZIP_DEFLATED)


def overlapping(path: Path) -> bytes:
    """The directory says that a tensor reaches into the next one."""
    changed = bytearray(path.read_bytes())
    entry = changed.rindex(b"PK\1\2", 0, changed.rindex(b"/data/0"))
    for begin in (20, 24):  # both sizes
        size = int.from_bytes(changed[entry + begin : entry + begin + 4], "little") + 500
        changed[entry + begin : entry + begin + 4] = size.to_bytes(4, "little")
    return bytes(changed)


def two_pickles(path: Path) -> bytes:
    """The name of a second pickle differs in capital letters only: torch takes either."""
    members = members_of(path)
    name = pickle_name(members).replace("data.pkl", "DATA.PKL")
    return archive({name: called(bytearray, LARGE)} | members)


def with_state(path: Path, *tensors: torch.Tensor) -> dict[str, Any]:
    return contents_of(path) | {"optimizer_states": list(tensors)}


def shared_storage(path: Path) -> dict[str, Any]:
    whole = torch.zeros(10**5)
    return with_state(path, *(whole.view(-1) for _ in range(2000)))


ORDERED = b"ccollections\nOrderedDict\nq\0"
ARCHIVES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "all members compressed": (partial(compressed, ending=""), "is compressed"),
    "a weight compressed": (partial(compressed, ending="/0"), "is compressed"),
    "a long text, compressed": (long_text, "is compressed"),
    "bytearray": (partial(pickled, called(bytearray, LARGE)), "it names .* bytearray"),
    "a tensor type": (
        partial(pickled, called(torch.FloatTensor, LARGE // 4)),
        "it names torch FloatTensor",
    ),
    "a storage": (partial(pickled, called(torch.UntypedStorage, LARGE)), "it names .*Storage"),
    "dictionaries": (partial(pickled, repeated(b"}", 6 * 10**6)), "too many containers"),
    "calls": (
        partial(pickled, repeated(b"h\0)R", 2 * 10**6, ORDERED)),
        "too many containers or calls",
    ),
    "a large pickle": (partial(pickled, repeated(b"K\1", 10**7)), "data.pkl has 20000"),
    "a view larger than its storage": (
        lambda path: with_state(path, torch.zeros(1).expand(10**5, 10**4)),
        "larger than its storage",
    ),
    "many views": (shared_storage, "are views of fewer"),
    "no storage": (
        lambda path: with_state(path, torch.zeros(1, device="meta")),
        "no part of a checkpoint",
    ),
    "members that overlap": (overlapping, "overlap"),
    "two pickles": (two_pickles, "its directory is wrong"),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "image": {"width": 10**6, "depth": 10**6, "head_width": 10**6},
    "lstm": {"width": 10**6, "depth": 10**6, "embedding": 10**6},
    "transformer": {"width": 10**5, "depth": 10**6},
}


def said(path: Path) -> str:
    """What `load` says of a checkpoint; empty if it loads."""
    try:
        arlm.load(path)
    except UserError as error:
        return str(error)
    return ""


def refused(content: Any, path: Path) -> str:
    write(content, path)
    del content
    message, growth = peak_growth(lambda: said(path))
    assert len(message.splitlines()) == 1
    assert growth < MOST
    return message


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_refused(name: str, sound: dict[str, Path], tmp_path: Path) -> None:
    make, reason = ARCHIVES[name]
    assert re.search(reason, refused(make(sound["image"]), tmp_path / "crafted.ckpt"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_huge_network_is_not_built(name: str, sound: dict[str, Path], tmp_path: Path) -> None:
    network, spec = part(sound[name], "network"), part(sound[name], "spec")
    for argument, value in NETWORKS[name].items():
        init_args = network["init_args"] | {argument: value}
        changed = with_entry(sound[name], network=network | {"init_args": init_args})
        assert "much larger network" in refused(changed, tmp_path / "crafted.ckpt"), argument
    if name == "transformer":  # its table of positions has a row for each
        changed = with_entry(sound[name], spec=spec | {"shape": [2**30]})
        assert "much larger network" in refused(changed, tmp_path / "crafted.ckpt")


def test_every_byte_that_is_read_is_verified(sound: dict[str, Path], tmp_path: Path) -> None:
    noise, content = np.random.default_rng(0), sound["image"].read_bytes()
    state = arlm.load(sound["image"]).net.state_dict()
    path, unseen = tmp_path / "damaged.ckpt", 0
    for place in noise.choice(len(content), 200, replace=False):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(noise.integers(8))
        path.write_bytes(damaged)
        if not said(path):
            unseen += 1  # padding, a time in a header, or the optimizer's state
            for name, weight in arlm.load(path).net.state_dict().items():
                assert torch.equal(weight, state[name])
    assert 0 < unseen < 150


def test_a_resume_verifies_the_state_of_the_optimizer(
    sound: dict[str, Path], tmp_path: Path
) -> None:
    content = sound["image"].read_bytes()
    checkpoints.verify_archive(sound["image"])
    path, place = tmp_path / "damaged.ckpt", content.index(torch.full((9,), 3.0).numpy().tobytes())
    for offset in range(0, 2000, 97):
        damaged = bytearray(content)
        damaged[place + offset] ^= 1
        path.write_bytes(damaged)
        assert said(path) == ""
        with pytest.raises(UserError, match=r"its member .*data/\d+ is damaged"):
            checkpoints.verify_archive(path)


def test_a_description_cannot_hide_from_its_checksum(sound: dict[str, Path]) -> None:
    """Steps, seconds and the files of an objective are in the pickle, which has a CRC-32 and no other checksum."""
    contents = contents_of(sound["image"]) | {"effort": {"tokens": 123456789}}
    file = io.BytesIO()
    torch.save(contents, file)
    damaged = file.getvalue().replace((123456789).to_bytes(4, "little"), (5).to_bytes(4, "little"))
    sound["image"].with_name("effort.ckpt").write_bytes(damaged)
    assert "data.pkl is damaged" in said(sound["image"].with_name("effort.ckpt"))
