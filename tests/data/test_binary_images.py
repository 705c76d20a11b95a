"""Binary images in text files: read as they are, checked, shuffled; the published MNIST by its checksums."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run_arlm

from arlm.data.dataset import Rows
from arlm.errors import UserError
from datamodules.binary_images import BinarizedMNIST, BinaryImages


def written(folder: Path, images: torch.Tensor, name: str, packed: bool = False) -> str:
    text = "".join(" ".join(map(str, row)) + " \n" for row in images.tolist()).encode()
    (folder / name).write_bytes(gzip.compress(text) if packed else text)
    return str(folder / name).removesuffix(".gz")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    images = (torch.arange(36).view(6, 6) * 7 % 3 == 0).int()
    names = ("train.amat", "val.amat.gz", "test.amat")
    return [written(tmp_path, images[i:], name, ".gz" in name) for i, name in enumerate(names)]


def test_images_are_those_of_the_files(files: list[str]) -> None:
    data = BinaryImages(*files, height=2, width=3)
    for number, split in enumerate(("train", "val", "test")):
        images, _ = data.read(split)
        lines = (torch.arange(36).view(6, 6) * 7 % 3 == 0).int()[number:]
        assert torch.equal(images.int(), lines)
        rows = data.dataset(split)[Rows(0, torch.arange(len(lines)))].tokens
        assert sorted(rows.tolist()) == sorted(lines.tolist())
    assert data.spec.shape == (2, 3, 1)
    assert data.provenance["protocol"] == "2 levels"  # the files are not the published draw
    assert BinarizedMNIST.draw == "2 levels, published draw"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 1 0\n0 1 2 0\n", "line 2: '2' is neither 0 nor 1"),
        ("0 1 1 0\n0 1 1\n", "line 2: 3 pixels; give 4"),
        ("0 1 1 0 1\n", "line 1: 5 pixels; give 4"),
        ("", "line 1: 0 pixels; give 4"),
        ("\n\n", "line 1: 0 pixels; give 4"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "images.amat"
    file.write_text(text)
    data = BinaryImages(*[str(file)] * 3, height=2, width=2)
    with pytest.raises(UserError, match=rf"data.val: '.*images.amat', {message}"):
        data.read("val")


def test_a_last_line_without_an_end_counts(tmp_path: Path) -> None:
    file = tmp_path / "images.amat"
    file.write_text("0 1 1 0\r\n\n1 1 1 1")
    images, _ = BinaryImages(*[str(file)] * 3, height=2, width=2).read("train")
    assert images.tolist() == [[0, 1, 1, 0], [1, 1, 1, 1]]


def test_a_file_that_differs_or_is_missing_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "binarized_mnist"
    folder.mkdir()
    arguments = ["fit", "--config", "mnist_pixelcnn_full", "--data.data_dir", tmp_path]
    done = run_arlm(*arguments)
    assert "binarized_mnist_train.amat' is neither in" in done.error()
    written(folder, torch.zeros(2, 784).int(), "binarized_mnist_train.amat.gz", packed=True)
    done = run_arlm(*arguments)
    assert "where the published file has cf70514ec5f481e54ad3eb0e6c03c83326ff96f8" in done.error()


def test_the_published_images(data_dir: Path) -> None:
    data = BinarizedMNIST(data_dir=str(data_dir))
    sizes = {split: len(data.dataset(split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 50_000, "val": 10_000, "test": 10_000}
    with gzip.open(data_dir / "binarized_mnist" / "binarized_mnist_test.amat.gz") as file:
        lines = file.readlines()
    own = np.array([line.split() for line in lines[:100]], dtype=np.uint8)
    assert np.array_equal(data.read("test")[0][:100].numpy(), own)
    pixels = {split: data.read(split)[0].double().mean().item() for split in sizes}
    assert all(0.12 < share < 0.14 for share in pixels.values())
