"""Crafted images, folders, idx files and MIDI files are refused in one line, without taking memory or waiting."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from arlm.domains.image import read_image
from arlm.domains.music import LARGEST, read_midi
from arlm.errors import UserError
from datamodules.digits import Digits
from datamodules.image_folder import ImageFolder
from datamodules.mnist import MNIST

ZEROS = b"\0" * 50_000_000


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    """A PNG file, with the pixels of the first rows only if it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * min((width + 1) * height, 10_000))
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def lab(path: Path) -> None:
    Image.new("RGB", (8, 8)).convert("LAB").save(path, "TIFF")


CRAFTED = {
    "lab.tif": (lab, "conversion from LAB"),
    "pixels.png": (lambda p: p.write_bytes(png(2**15, 2**12)), "pixels, more than"),
    "bomb.png": (lambda p: p.write_bytes(png(2**31 - 1, 2**31 - 1)), "decompression bomb"),
    "ztxt.png": (
        lambda p: p.write_bytes(png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(ZEROS)))),
        "too large",
    ),
    "itxt.png": (
        lambda p: p.write_bytes(png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(ZEROS)))),
        "too large",
    ),
    "iccp.png": (
        lambda p: p.write_bytes(png(8, 8, chunk(b"iCCP", b"a\0\0" + zlib.compress(ZEROS)))),
        "too large",
    ),
    "zero.png": (lambda p: p.write_bytes(png(0, 0)), "is not an image"),
    "program.png": (
        lambda p: p.write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
        ),
        "is not an image",
    ),
    "pipe.png": (lambda p: os.mkfifo(p), "a pipe or a device"),
    "device.png": (lambda p: p.symlink_to("/dev/zero"), "a pipe or a device"),
    "broken.png": (lambda p: p.symlink_to("nowhere"), "No such file"),
    "folder.png": (lambda p: p.mkdir(), "Is a directory"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_image_is_refused(tmp_path: Path, name: str) -> None:
    make, part = CRAFTED[name]
    make(tmp_path / name)
    with pytest.raises(UserError, match=part):
        read_image(tmp_path / name, 1, "FILE")


@pytest.mark.parametrize("name", ["pipe.png", "device.png", "broken.png"])
def test_what_is_no_file_in_a_folder_of_images_is_refused(photographs: Path, name: str) -> None:
    CRAFTED[name][0](photographs / name)
    with pytest.raises(UserError, match=f"{name}' is a pipe, a device or a broken link"):
        ImageFolder(str(photographs), size=10).dataset("train")


def test_a_folder_that_is_named_like_an_image_is_no_image(photographs: Path) -> None:
    (photographs / "cat" / "more.png").mkdir()
    assert len(ImageFolder(str(photographs), size=10).files) == 60


def test_images_that_memory_cannot_hold_are_refused(photographs: Path) -> None:
    with pytest.raises(UserError, match=r"data.size: 1000000 pixels for \d+ images needs about"):
        ImageFolder(str(photographs), size=10**6).dataset("train")


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as FashionMNIST's, which has no checksums, with few images."""
    monkeypatch.setattr("datamodules.mnist.IMAGES", {"train": 30, "test": 20})
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 20)):
        pixels = np.zeros((count, 28, 28), np.uint8).tobytes()
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels)
        labels = bytes(i % 10 for i in range(count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels)
    return tmp_path


def fashion(folder: Path) -> MNIST:
    return MNIST("FashionMNIST", labels=True, data_dir=str(folder), batch_size=4)


def test_intact_idx_files_are_read(mnist: Path) -> None:
    data = fashion(mnist)
    data.prepare_data()
    assert len(data.dataset("test")) == 20


@pytest.mark.parametrize(
    ("kind", "content", "part"),
    [
        (
            "labels-idx1",
            struct.pack(">II", 0x801, 20) + b"\xff" * 20,
            "a label of the test split is 255",
        ),
        (
            "labels-idx1",
            struct.pack(">II", 0x801, 20) + b"\x0a" * 20,
            "a label of the test split is 10",
        ),
        ("labels-idx1", struct.pack(">II", 0x801, 19) + b"\0" * 19, "is corrupt"),
        ("labels-idx1", struct.pack(">II", 0x801, 20) + b"\0" * 10, "is corrupt"),
        ("labels-idx1", struct.pack(">II", 0x8FF, 20) + b"\0" * 20, "is corrupt"),
        ("labels-idx1", struct.pack(">II", 0x801, 2**32 - 1), "is corrupt"),
        ("labels-idx1", None, "the labels beside"),
        ("images-idx3", struct.pack(">IIII", 0x8FF, 20, 28, 28) + b"\0" * 15680, "is corrupt"),
        ("images-idx3", struct.pack(">IIII", 0x803, 20, 255, 255), "is corrupt"),
        ("images-idx3", b"", "is corrupt"),
    ],
)
def test_crafted_idx_files_are_refused(
    mnist: Path, kind: str, content: bytes | None, part: str
) -> None:
    path = mnist / "FashionMNIST" / "raw" / f"t10k-{kind}-ubyte"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    data = fashion(mnist)
    with pytest.raises(UserError, match=part):
        data.prepare_data() or data.dataset("test")


def test_labels_of_an_image_module_are_within_its_classes() -> None:
    with pytest.raises(
        UserError, match=r"a label of the val split is -1, but the classes are 0 to 9"
    ):
        Digits(labels=True).labels_of("val", torch.tensor([0, 9, -1]))


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda p: os.mkfifo(p), "is no MIDI file"),
        (lambda p: p.symlink_to("/dev/zero"), "is no MIDI file"),
        (lambda p: p.write_bytes(b"MThd" + bytes(LARGEST)), "more than 1,048,576 bytes"),
        (
            lambda p: p.write_bytes(
                b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\x0a\0\xff\x59\2\x7f\x7f\0\xff\x2f\0"
            ),
            "is no MIDI file",
        ),
    ],
    ids=["pipe", "device", "large", "key"],
)
def test_crafted_midi_files_are_refused(tmp_path: Path, make, part: str) -> None:
    pytest.importorskip("mido", reason="needs mido, of the extra [music]")
    make(tmp_path / "a.mid")
    with pytest.raises(UserError, match=part):
        read_midi(tmp_path / "a.mid", "FILE")
