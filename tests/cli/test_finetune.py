"""Fine-tuning by flags: the weights of a run on other data, and a result that needs no old file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Result, run_arlm

import arlm as library
from arlm.checkpoints import find

CONFIGS = ROOT / "configs"
SHORT = ["--trainer.max_steps", 2, "--trainer.limit_val_batches", 1, "--samples.n", 0]
SHORT += ["--trainer.accelerator", "cpu"]
FIRST = "the quick brown fox jumps over the lazy dog. "
SECOND = "over the dog jumps a fox that is quick. "
STILL = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.0]


@pytest.fixture
def arlm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run the command line in an empty folder with two texts."""
    monkeypatch.chdir(tmp_path)
    Path("first.txt").write_text(FIRST * 60)
    Path("second.txt").write_text(SECOND * 60)
    return run_arlm


def text(path: str, *more: object) -> list[object]:
    """Options for the text of a file."""
    return ["--data", "TextFile", "--data.path", path, "--data.length", 16, *more]


LSTM = ["--config", CONFIGS / "text/docs_lstm.yaml", "--model.net.width", 8, *SHORT]
TUNED = ["--model.net", "pretrained", "--model.net.checkpoint", "runs/base", *SHORT]


def test_text_keeps_its_tokenizer_and_needs_no_old_run(arlm) -> None:
    characters = ["--data.tokenizer", "character"]
    done = arlm("fit", *LSTM, *text("first.txt", *characters), "--run-name", "base")
    assert done.code == 0, done.err
    base = library.load("runs/base")
    # Other characters than those of the first text, in another order, and rows of another length.
    more = text("second.txt", *characters, "--data.length", 24)
    done = arlm("fit", *TUNED, *STILL, *more, "--run-name", "tuned")
    assert done.code == 0, done.err
    tuned = library.load("runs/tuned")
    assert tuned.domain.tokenizer.alphabet == base.domain.tokenizer.alphabet
    for name, weight in base.net.state_dict().items():
        assert torch.equal(weight, tuned.net.state_dict()[name]), name  # at a learning rate of 0
    shutil.rmtree("runs/base")
    done = arlm("sample", "runs/tuned", "-n", 1, "--prompt", "the ")
    assert done.code == 0, done.err
    assert "the " in done.out
    done = arlm("evaluate", "runs/tuned")
    assert done.code == 0, done.err
    path = find("runs/tuned")
    moved = arlm("fit", *TUNED[:3], path, *SHORT, *more, "--run-name", "again")
    assert moved.code == 0, moved.err
    changed = library.load("runs/again").net.state_dict()
    assert any(not torch.equal(w, changed[k]) for k, w in tuned.net.state_dict().items())


def test_characters_that_the_tokenizer_lacks_are_one_line(arlm) -> None:
    characters = ["--data.tokenizer", "character"]
    assert arlm("fit", *LSTM, *text("first.txt", *characters), "--run-name", "base").code == 0
    Path("third.txt").write_text("ÄÖÜ and so on " * 60)
    error = arlm("fit", *TUNED, *text("third.txt")).error()
    assert "character 'Ä' is unknown to the tokenizer" in error
    error = arlm("fit", *TUNED, "--data", "Digits").error()
    assert "data: it is for ImageDomain, but 'runs/base' models TextDomain; choose" in error


def test_images_and_translations(arlm) -> None:
    digits = ["--config", CONFIGS / "images/digits_pixelcnn.yaml", "--model.net.width", 4]
    digits += ["--model.net.depth", 1, *SHORT]
    assert arlm("fit", *digits, "--run-name", "base").code == 0
    done = arlm("fit", *TUNED, "--data", "Digits", "--data.seed", 1, "--run-name", "image")
    assert done.code == 0, done.err
    error = arlm("fit", *TUNED, "--data", "Digits", "--data.labels", "true").error()
    assert "model.net: 'runs/base' was trained with other contexts" in error
    shutil.rmtree("runs/base")
    dates = ["--config", CONFIGS / "translation/dates_lstm.yaml", "--model.net.width", 8]
    dates += ["--data.pairs", 2000, *SHORT]
    assert arlm("fit", *dates, "--run-name", "base").code == 0
    more = ["--data", "Dates", "--data.pairs", 3000, "--data.seed", 1, "--run-name", "dates"]
    done = arlm("fit", *TUNED, *more)
    assert done.code == 0, done.err
    shutil.rmtree("runs/base")
    assert arlm("sample", "runs/image", "-n", 1, "--out", "x.png").code == 0
    Path("in.txt").write_text("12 MAY in 1944\n")
    assert arlm("translate", "runs/dates", "in.txt").code == 0
