"""What `fit` says, where it writes, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Result, run_arlm

from arlm.checkpoints import summarise

CONFIG = ROOT / "configs/images/digits_pixelcnn.yaml"
TINY = ["--model.net.width", 4, "--model.net.depth", 1, "--trainer.accelerator", "cpu"]
QUICK = ["--samples.n", 0, "--trainer.limit_val_batches", 1]
DIGITS = ["--config", CONFIG, *TINY, *QUICK]


@pytest.fixture
def arlm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_arlm


def test_a_run_says_what_it_does_and_what_it_did(arlm) -> None:
    done = arlm("fit", *DIGITS, "--trainer.max_steps", 3, "--run-name", "first")
    assert done.code == 0, done.err
    assert done.out == "runs/first/version_0\n"
    lines = done.err.splitlines()
    start, last = lines[:6], lines[-5:]
    contents = torch.load("runs/first/version_0/checkpoints/best.ckpt", weights_only=True)
    count = sum(w.numel() for name, w in contents["state_dict"].items() if name[:4] == "net.")
    assert start == [
        "run        runs/first/version_0",
        f"network    PixelCNN, {count:,} parameters",
        "data       digits: 1,437 training rows of 8 x 8 x 1 tokens, vocabulary 17",
        "objective  Likelihood, the best checkpoint by val/nll",
        "device     cpu, precision 32-true",
        "training   3 steps of 32 rows",
    ]
    best = summarise(Path("runs/first/version_0/checkpoints/best.ckpt"))
    assert re.fullmatch(r"run +runs/first/version_0, 3 steps in \d+ s", last[0])
    assert last[1] == "page  runs/first/version_0/index.html"
    assert Path("runs/first/version_0/index.html").stat().st_size > 1000
    assert last[2].startswith(f"best  val/nll {best.figure:.4g}, val/bits_per_dim ")
    assert last[2].endswith(" at step 3")
    assert last[3:] == ["next  arlm sample runs/first", "      arlm evaluate runs/first"]
    assert "stopped" not in done.err
    worse = arlm("fit", *DIGITS, "--trainer.max_steps", 1, "--run-name", "first")
    assert worse.err.splitlines()[-2] == "next  arlm sample runs/first/version_1"


def test_lines_of_progress_are_those_of_their_step(arlm, monkeypatch: pytest.MonkeyPatch) -> None:
    from arlm.training import progress

    monkeypatch.setattr(progress.LineProgress.__init__, "__defaults__", (0.0,))
    done = arlm("fit", *DIGITS, "--trainer.max_steps", 4)
    lines = [line for line in done.err.splitlines() if "train/nll" in line]
    assert [re.findall(r"step (\d)/4", line) for line in lines] == [["1"], ["2"], ["3"], ["4"]]
    losses = [re.findall(r"train/nll (\S+)", line)[0] for line in lines]
    assert len(set(losses)) == 4  # once, the loss of step 1 was repeated
    assert all(re.search(r"  [\d,]+ tokens/s  \d+ s left$", line) for line in lines)
    assert lines[-1].endswith("  0 s left")


@pytest.mark.parametrize(
    "interval",
    [
        ["--trainer.val_check_interval", 450, "--trainer.check_val_every_n_epoch", "null"],
        ["--trainer.check_val_every_n_epoch", 3],
        ["--trainer.val_check_interval", 4, "--trainer.accumulate_grad_batches", 2],
    ],
    ids=str,
)
def test_the_last_step_is_validated_once(arlm, interval: list) -> None:
    done = arlm("fit", *DIGITS, *interval, "--trainer.max_steps", 5)
    assert done.code == 0, done.err
    validated = re.findall(r"step (\d)/5  val/nll", done.err)
    assert validated.count("5") == 1
    path = next(Path("runs").rglob("last.ckpt"))
    assert summarise(path).run["step"] == summarise(path).run["validated"] == 5


def test_a_trial_run_writes_nothing(arlm) -> None:
    done = arlm("fit", *DIGITS, "--trainer.fast_dev_run", 1, "--samples.n", 2)
    assert done.code == 0, done.err
    assert "nothing is written" in done.err
    assert done.err.splitlines()[-1].endswith("nothing was written")
    assert done.out == ""
    assert list(Path().iterdir()) == []
    assert arlm("predict", *DIGITS, "--trainer.fast_dev_run", 1).code == 0
    assert list(Path().iterdir()) == []


def test_a_run_of_steps_is_validated_by_itself(arlm) -> None:
    steps = ["--trainer.max_epochs", "null", "--trainer.max_steps", 1]
    assert arlm("fit", *DIGITS, *steps, "--run-name", "x").code == 0
    done = arlm("validate", *DIGITS, *steps, "--ckpt_path", "runs/x")
    assert done.code == 0, done.err
    assert "val/nll" in done.out
    assert "step 0" not in done.err  # progress is that of training


def test_predict_leaves_samples_only(arlm) -> None:
    arlm("fit", *DIGITS, "--trainer.max_steps", 1, "--run-name", "x")
    before = sorted(Path("runs").rglob("*"))
    done = arlm("predict", *DIGITS, "--ckpt_path", "runs/x", "--run-name", "drawn")
    assert done.code == 0, done.err
    written = set(Path("runs").rglob("*")) - set(before)
    files = [path for path in written if path.is_file()]
    assert [str(path) for path in files] == done.out.split()[1:2]
    assert all(path.is_file() or any(path.iterdir()) for path in written)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of digits of 4 steps."""
    folder = tmp_path_factory.mktemp("resumed")
    done = run_arlm("fit", *DIGITS, "--trainer.max_steps", 4, "--run-name", "r", folder=folder)
    assert done.code == 0, done.err
    return folder / "runs/r/version_0/checkpoints/last.ckpt"


@pytest.mark.parametrize(
    ("option", "value", "trained"),
    [
        ("data.batch_size", 64, 32),
        ("data.seed", 1, 0),
        ("trainer.accumulate_grad_batches", 2, 1),
    ],
)
def test_a_resumed_run_keeps_the_rows_of_its_steps(
    arlm, run: Path, option: str, value: int, trained: int
) -> None:
    more = ["--trainer.max_steps", 6, "--ckpt_path", run, f"--{option}", value]
    error = arlm("fit", *DIGITS, *more).error()
    expected = f"{option}: {value} given, but the checkpoint was trained with {trained}; give {trained}, or"
    assert expected in error
    assert arlm("test", *DIGITS, *more[2:]).code == 0  # nothing is trained


def test_a_resumed_run_may_become_longer_and_says_so(arlm, run: Path) -> None:
    more = ["--data.num_workers", 0, "--ckpt_path", run, "--run-name", "r"]
    done = arlm("fit", *DIGITS, "--trainer.max_steps", 6, *more)
    assert done.code == 0, done.err
    assert "note: the run was planned for 4 steps and continues to 6" in done.err
    assert "training   6 steps of 32 rows, from step 4" in done.err
    done = arlm("fit", *DIGITS, "--trainer.max_steps", 4, *more)
    assert "note:" not in done.err


def test_tensorboard_by_one_flag(arlm, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    more = ["--samples.n", 2, "--trainer.max_steps", 2, "--trainer.log_every_n_steps", 1]
    done = arlm("fit", *DIGITS, *more, "--run-name", "seen", "--tensorboard")
    assert done.code == 0, done.err
    folder = Path("runs/seen/version_0")
    assert done.out == f"{folder}\n"
    assert "train/nll" in (folder / "metrics.csv").read_text()
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert events.Tags()["images"] == ["samples"]
    assert {"train/nll", "val/bits_per_dim"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("train/nll")) == 2
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    error = arlm("fit", *DIGITS, *more, "--tensorboard").error()
    assert "--tensorboard: it is not installed; `pip install tensorboard`" in error


def test_a_missing_logger_is_one_line(arlm) -> None:
    error = arlm("fit", *DIGITS, "--trainer.logger", "WandbLogger").error()
    assert "WandbLogger: needs a package" in error
    assert "`pip install 'wandb>=" in error
