"""Image data sets from files: splits, labels, protocols, and one-line errors for bad input."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from test_data_modules import check_splits

from arlm.data.dataset import Rows
from arlm.domains import ImageDomain
from arlm.domains.image import read_image
from arlm.errors import UserError
from datamodules.cifar10 import CIFAR10
from datamodules.image_folder import ImageFolder
from datamodules.mnist import MNIST


def test_image_folder(photographs: Path) -> None:
    data = ImageFolder(str(photographs), size=10, levels=16, labels=True, held_out=5, batch_size=4)
    assert data.spec.shape == (10, 10, 3)
    assert data.spec.vocab_size == 16
    assert data.spec.context is not None
    assert data.spec.context.vocab_size == 2
    check_splits(data)
    assert sum(len(data.dataset(s)) for s in ("train", "val", "test")) == 60
    rows = data.dataset("train")[Rows(0, torch.arange(8))]
    assert rows.context.shape == (8, 1)
    assert rows.tokens.max() < 16
    before = {len(data.dataset(s)) for s in ("val", "test")}
    assert data.provenance["protocol"] == "10x10x3, 16 levels, class label given"
    (photographs / "cat" / "zz.png").write_bytes((photographs / "cat" / "03.png").read_bytes())
    again = ImageFolder(str(photographs), size=10, levels=16, held_out=5)
    assert again.provenance["sha256"] != data.provenance["sha256"]
    assert {len(again.dataset(s)) for s in ("val", "test")} <= before | {n + 1 for n in before}


def test_an_image_of_the_right_size_is_read_as_it_is(photographs: Path) -> None:
    path = photographs / "dog" / "00.png"
    data = ImageFolder(str(photographs), size=10)
    assert torch.equal(data._read(path), torch.from_numpy(np.array(Image.open(path))))
    wide = photographs / "cat" / "01.jpg"  # 12 x 20: the middle rows of what is resized to 10 wide
    assert data._read(wide).shape == (10, 10, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "nowhere"}, "data.path: 'nowhere' is not a folder"),
        ({"path": "empty"}, "data.path: 'empty' holds no images"),
        ({"path": "pictures", "levels": 17}, "data.levels: 17"),
        ({"path": "pictures", "size": 0}, "data.size: 0"),
        ({"path": "pictures", "channels": 2}, "data.channels: 2"),
        (
            {"path": "flat", "labels": True},
            "data.labels: some images of 'flat' are in no subfolder",
        ),
        ({"path": "flat"}, "data.path: no image of 'flat' falls into the"),
    ],
)
def test_bad_folders_are_refused(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict, message: str
) -> None:
    monkeypatch.chdir(photographs.parent)
    Path("empty").mkdir()
    Path("flat").mkdir()
    Image.new("RGB", (4, 4)).save("flat/a.png")

    def use() -> None:
        data = ImageFolder(**arguments)
        assert data.spec
        for split in ("train", "val", "test"):
            data.dataset(split)

    with pytest.raises(UserError, match="data") as caught:
        use()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.txt", lambda p: p.write_text("no image"), "is not an image; give a PNG or JPEG"),
        ("b.png", lambda p: p.write_bytes(b""), "is not an image"),
        ("c.png", lambda p: Image.new("I;16", (4, 4)).save(p), "more than 8 bits a channel"),
        ("d.png", lambda p: Image.new("RGBA", (4, 4)).save(p), "has an alpha channel"),
        ("e.png", lambda p: Image.new("LA", (4, 4)).save(p), "has an alpha channel"),
        ("f.png", lambda p: None, "cannot read"),
        ("g.png", lambda p: cut(p), "cannot read"),
    ],
)
def test_bad_images_are_refused(tmp_path: Path, name: str, make, message: str) -> None:
    make(tmp_path / name)
    with pytest.raises(UserError, match="image:") as caught:
        read_image(tmp_path / name, 3, "image")
    assert message in str(caught.value)
    assert name in str(caught.value)


def cut(path: Path) -> None:
    """A picture whose file breaks off."""
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:500])


def test_palettes_and_grey_become_what_is_asked_for(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2), (10, 20, 30)).convert("P").save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png", 3, "x").shape == (2, 3, 3)
    Image.new("1", (3, 2), 1).save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png", 1, "x").unique().tolist() == [255]
    with pytest.raises(UserError, match="is 3x2 pixels; give an image of 5x5"):
        ImageDomain(2, 5, 5).read(tmp_path / "b.png", "x")


def test_cifar10(cifar: Path) -> None:
    data = CIFAR10(data_dir=str(cifar), labels=True, batch_size=4)
    check_splits(data)
    assert [len(data.dataset(s)) for s in ("train", "val", "test")] == [90, 10, 20]
    assert data.spec.shape == (32, 32, 3)
    assert data.provenance["protocol"] == "256 levels, class label given"
    (folder,) = (p for p in cifar.iterdir() if p.is_dir())
    first = pickle.loads((folder / "data_batch_1").read_bytes())["data"][0]
    image = data.domain.decode(data.dataset("train")[Rows(0, torch.arange(1))].tokens)[0]
    assert np.array_equal(image.numpy(), first.reshape(3, 32, 32).transpose(1, 2, 0))
    coarse = CIFAR10(levels=8, data_dir=str(cifar))
    assert coarse.spec.context is None
    assert coarse.dataset("test")[Rows(0, torch.arange(20))].tokens.max() == 7


def test_a_broken_cifar10_is_refused(tmp_path: Path) -> None:
    (tmp_path / torchvision.datasets.CIFAR10.base_folder).mkdir()
    with pytest.raises(UserError, match=r"data\.data_dir: .* no intact cifar-10-batches-py"):
        CIFAR10(data_dir=str(tmp_path)).prepare_data()


def test_mnist_with_labels(data_dir: Path) -> None:
    data = MNIST(data_dir=str(data_dir), labels=True, batch_size=4)
    plain = MNIST(data_dir=str(data_dir), batch_size=4)
    for split in ("train", "val", "test"):
        rows = Rows(0, torch.arange(4))
        batch = data.dataset(split)[rows]
        assert torch.equal(batch.tokens, plain.dataset(split)[rows].tokens)
        assert batch.context.shape == (4, 1)
    assert data.dataset("test")[rows].context[:, 0].tolist() == [7, 2, 1, 0]
    assert "class label given" in data.provenance["protocol"]
    with pytest.raises(UserError, match=r"data\.levels: 100 .*power of two"):
        MNIST(levels=100)
