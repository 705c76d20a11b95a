"""One torch thread: with two, OpenMP spins at every barrier when the cores are shared."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; subprocesses inherit it

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]


@pytest.fixture
def data_dir() -> Path:
    """The folder of real data sets, or a skip."""
    folder = os.environ.get("ARLM_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the data sets of ARLM_DATA_DIR")
    return Path(folder).resolve()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """60 small pictures of two classes, in two sizes and three formats."""
    noise = np.random.default_rng(0)
    for index in range(60):
        folder = tmp_path / "pictures" / ("cat" if index % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        size = (20, 12, 3) if index % 3 else (10, 10, 3)
        picture = Image.fromarray(noise.integers(0, 256, size, dtype=np.uint8))
        picture.save(folder / f"{index:02}.{('png', 'jpg', 'bmp')[index % 3]}")
    return tmp_path / "pictures"


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as CIFAR-10's, with 20 images a file."""
    kind = torchvision.datasets.CIFAR10
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    noise = np.random.default_rng(0)
    names = [name for name, _ in kind.train_list + kind.test_list]
    for name in names:
        pixels = noise.integers(0, 256, (20, 3072), dtype=np.uint8)
        content = {"data": pixels, "labels": noise.integers(0, 10, 20).tolist()}
        (folder / name).write_bytes(pickle.dumps(content))
    meta = {"label_names": [str(i) for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    monkeypatch.setattr(kind, "train_list", [[n, None] for n in names[:5]])
    monkeypatch.setattr(kind, "test_list", [[names[5], None]])
    monkeypatch.setattr(
        kind, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None}
    )
    return tmp_path
