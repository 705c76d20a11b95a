"""A run that is stopped at any moment, and resumed, equals one that was never stopped."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Result, run_arlm

from arlm.checkpoints import summarise
from arlm.training.interrupts import interrupts

TEXT = [
    *("--data", "datamodules.text_file.TextFile", "--data.path", "text.txt"),
    *("--data.tokenizer", "byte", "--data.length", 8, "--data.batch_size", 4),
    *("--data.batching", "windows"),
]
TRANSFORMER = [
    *("--model.net", "TransformerLanguageModel", "--model.net.width", 8, "--model.net.depth", 1),
    *("--model.net.heads", 2, "--model.net.dropout", 0.2),
]
LSTM = [
    *("--model.net", "LSTMLanguageModel", "--model.net.width", 8, "--model.net.depth", 2),
    *("--model.net.dropout", 0.2, "--data.batching", "continuous"),
]
PIXELS = [
    *("--data", "datamodules.digits.Digits", "--data.batch_size", 16),
    *("--model.net", "PixelCNN", "--model.net.width", 4, "--model.net.depth", 1),
    *("--trainer.limit_train_batches", 13),
]
PAIRS = [
    *("--data", "datamodules.dates.Dates", "--data.batch_tokens", 700),
    *("--model.net", "LSTMSeq2Seq", "--model.net.width", 8, "--model.net.dropout", 0.2),
    *("--model.net.depth", 1, "--trainer.limit_train_batches", 13),
]
FAMILIES = {
    "windows": [*TEXT, *TRANSFORMER],
    "streams": [*TEXT, *LSTM],
    "pixels": PIXELS,
    "pairs": PAIRS,
}
COMMON = [
    *("--trainer.accelerator", "cpu", "--trainer.max_epochs", 3, "--trainer.log_every_n_steps", 4),
    *("--trainer.val_check_interval", 5, "--trainer.limit_val_batches", 3),
    *("--samples.n", 0, "--model.optimizer", "AdamW", "--model.optimizer.lr", 0.01),
]
AVERAGED = [
    "--trainer.callbacks+=EMAWeightAveraging",
    "--trainer.callbacks.decay=0.9",
]
Run = Callable[..., Result]


@pytest.fixture
def arlm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in an empty folder with a text of 104 windows."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 10)
    return run_arlm


def at(hook: str, step: int, sent: str = "SIGTERM") -> list[str]:
    """Options of a run that is stopped."""
    callback = [f"--trainer.callbacks.hook={hook}", f"--trainer.callbacks.step={step}"]
    return ["--trainer.callbacks+=moments.At", *callback, f"--trainer.callbacks.sent={sent}"]


def outcome(name: str) -> dict[str, Any]:
    """Everything of a run that does not depend on the clock."""
    folder = Path("runs") / name / "version_0"
    found: dict[str, Any] = {}
    for file in ("last", "best"):
        path = folder / "checkpoints" / f"{file}.ckpt"
        contents = torch.load(path, weights_only=True)
        weights = {key: value.tolist() for key, value in contents["state_dict"].items()}
        run = summarise(path).run
        kept = {key: run[key] for key in ("step", "epoch", "figure", "figures", "validated")}
        found[file] = weights | kept
        found[file]["optimizer"] = repr(contents["optimizer_states"])
        score = contents["callbacks"]
        keeper = next(value for key, value in score.items() if "RunCheckpoint" in key)
        found[file]["score"] = float(keeper["best_model_score"])
    clock = {"seconds", "tokens_per_second", "images_per_second"}
    with (folder / "metrics.csv").open(newline="") as rows:
        found["rows"] = [
            sorted((key, value) for key, value in row.items() if key not in clock)
            for row in csv.DictReader(rows)
        ]
    return found


def assert_resumes_to(whole: dict[str, Any], arlm: Run, options: list[Any], name: str) -> None:
    resumed = arlm("fit", *options, "--run-name", name, "--resume")
    assert resumed.code == 0, resumed.err
    mine = outcome(name)
    assert mine["rows"] == whole["rows"]
    for file in ("last", "best"):
        for key, value in whole[file].items():
            assert mine[file][key] == value, f"{file}: {key}"


MOMENTS = [
    *(("on_train_batch_start", 0), ("on_train_batch_start", 7), ("on_after_backward", 12)),
    *(("on_before_optimizer_step", 9), ("on_train_batch_end", 5), ("on_train_batch_end", 13)),
    *(("on_train_epoch_end", 13), ("on_validation_start", 5), ("on_validation_batch_end", 10)),
    ("on_validation_end", 15),
]
ACCUMULATED = [*AVERAGED, "--trainer.accumulate_grad_batches", 2]


def stop_at_all(moments: list[tuple[str, int]], options: list[Any], arlm: Run) -> None:
    """Stop a run at each of the moments, by all signals in turn, and compare the resumed runs with a whole one."""
    whole = arlm("fit", *options, "--run-name", "whole")
    assert whole.code == 0, whole.err
    expected = outcome("whole")
    for index, (hook, step) in enumerate(moments):
        sent = ("SIGTERM", "SIGINT", "SIGHUP")[index % 3]
        name = f"cut{index}"
        cut = arlm("fit", *options, *at(hook, step, sent), "--run-name", name)
        assert cut.code == 128 + getattr(signal, sent), cut.err
        assert f"stopped by {sent} at step " in cut.err
        assert "--resume" in cut.err
        assert_resumes_to(expected, arlm, options, name)


@pytest.mark.parametrize(
    ("family", "moments"),
    [
        ("windows", [("on_after_backward", 12), ("on_train_epoch_end", 13)]),
        ("streams", [("on_validation_batch_end", 10)]),
        ("pixels", [("on_before_optimizer_step", 9)]),
        ("pairs", [("on_train_batch_start", 7)]),
    ],
)
def test_after_a_signal(family: str, moments: list[tuple[str, int]], arlm: Run) -> None:
    stop_at_all(moments, [*FAMILIES[family], *COMMON], arlm)


def test_after_a_signal_with_averages_and_accumulation(arlm: Run) -> None:
    moments = [("on_after_backward", 3), ("on_validation_batch_end", 5)]
    stop_at_all(moments, [*FAMILIES["windows"], *COMMON, *ACCUMULATED], arlm)


def test_a_validation_within_a_step_keeps_its_row(arlm: Run) -> None:
    # Every second validation comes after the first of two batches of a step.
    options = [*FAMILIES["pairs"], *COMMON, "--trainer.accumulate_grad_batches", 2]
    arlm("fit", *options, "--run-name", "whole")
    expected = outcome("whole")
    # Killed, as it were, after the checkpoint of that validation.
    with pytest.raises(RuntimeError, match="planted"):
        arlm("fit", *options, *at("on_train_batch_end", 3, ""), "--run-name", "cut")
    contents = torch.load("runs/cut/version_0/checkpoints/last.ckpt", weights_only=True)
    assert contents["accumulated"]
    assert_resumes_to(expected, arlm, options, "cut")


@pytest.mark.parametrize(
    "limit",
    [
        pytest.param(("--trainer.max_epochs", 3), marks=pytest.mark.slow),
        ("--trainer.max_steps", 18),
    ],
)
def test_after_a_signal_at_the_end_of_an_epoch(limit: tuple[str, int], arlm: Run) -> None:
    by_steps = ["--trainer.max_epochs", -1, "--trainer.check_val_every_n_epoch", "null"]
    options = [*FAMILIES["pairs"], *COMMON, *by_steps, "--trainer.accumulate_grad_batches", 2]
    moments = [("on_train_epoch_end", 7), ("on_train_epoch_end", 14)]
    stop_at_all(moments, [*options, *limit], arlm)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ACCUMULATED], ids=["plain", "averaged"])
@pytest.mark.parametrize("family", FAMILIES)
def test_after_a_signal_at_any_moment(family: str, more: list[Any], arlm: Run) -> None:
    moments = [(hook, step // 2 if more else step) for hook, step in MOMENTS]
    stop_at_all(moments, [*FAMILIES[family], *COMMON, *more], arlm)


def crash(arlm: Run, options: list[Any], hook: str, step: int, name: str) -> None:
    with pytest.raises(RuntimeError, match="planted"):
        arlm("fit", *options, *at(hook, step, ""), "--run-name", name)


@pytest.mark.parametrize("family", ["streams", "windows"])
def test_after_an_exception(family: str, arlm: Run) -> None:
    options = [*FAMILIES[family], *COMMON]
    arlm("fit", *options, "--run-name", "whole")
    expected = outcome("whole")
    for hook, step, saved in [
        ("on_after_backward", 8, 8),  # the last complete step
        ("on_before_optimizer_step", 15, 15),  # after a validation
        (
            "on_train_batch_end",
            9,
            5,
        ),  # weights have changed: the checkpoint of the last validation stays
    ]:
        crash(arlm, options, hook, step, f"{hook}{step}")
        folder = Path("runs") / f"{hook}{step}" / "version_0" / "checkpoints"
        assert summarise(folder / "last.ckpt").run["step"] == saved
        assert (
            summarise(folder / "best.ckpt").run["validated"]
            == summarise(folder / "best.ckpt").run["step"]
        )
        assert_resumes_to(expected, arlm, options, f"{hook}{step}")


@pytest.mark.parametrize("every", [3, 5])
def test_the_best_checkpoint_is_that_of_its_validation(every: int, arlm: Run) -> None:
    # Validations are after 5, 10, 12, 17, ... steps: at some of the steps that are saved, and at none of them.
    options = [*FAMILIES["windows"], *COMMON, "--checkpoint.every_n_train_steps", every]
    done = arlm("fit", *options, "--run-name", "whole")
    assert done.code == 0, done.err
    expected = outcome("whole")
    for index, (hook, step) in enumerate(
        # In a validation of a step that is saved; and later, when a figure is of an earlier step.
        [("on_validation_start", 10), ("on_train_batch_end", 13)]
    ):
        with pytest.raises(RuntimeError, match="planted"):
            arlm("fit", *options, *at(hook, step, ""), "--run-name", f"cut{index}")
        best = summarise(Path(f"runs/cut{index}/version_0/checkpoints/best.ckpt")).run
        assert best["validated"] == best["step"] in (5, 10, 12)
        assert_resumes_to(expected, arlm, options, f"cut{index}")
    best = summarise(Path("runs/whole/version_0/checkpoints/best.ckpt")).run
    assert best["validated"] == best["step"]


def test_each_of_the_best_checkpoints_is_that_of_its_validation(arlm: Run) -> None:
    several = ["--checkpoint.save_top_k", 3, "--checkpoint.filename", "best-{step}"]
    options = [*FAMILIES["windows"], *COMMON, *several, "--checkpoint.every_n_train_steps", 3]
    stop = at("on_train_batch_end", 8, "SIGTERM")
    assert arlm("fit", *options, *stop, "--run-name", "run").code == 143
    found = sorted(Path("runs/run/version_0/checkpoints").glob("best-*.ckpt"))
    assert [path.name for path in found] == ["best-step=5.ckpt"]  # and none of step 6
    assert summarise(found[0]).run["validated"] == 5
    stop = at("on_validation_end", 10, "SIGTERM")
    assert arlm("fit", *options, *stop, "--run-name", "other").code == 143
    last = Path("runs/other/version_0/checkpoints/last.ckpt")  # and not that of step 9
    assert summarise(last).run["step"] == 10


def test_a_signal_before_the_first_step_stops_at_once(arlm: Run) -> None:
    options = [*FAMILIES["pixels"], *COMMON, *at("on_fit_start", 0, "SIGINT")]
    stopped = arlm("fit", *options, "--run-name", "none")
    assert stopped.code == 130
    assert not list(Path("runs/none/version_0").rglob("*.ckpt"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_signal_ends_the_process_at_once() -> None:
    child = os.fork()
    if not child:
        try:
            with interrupts.handled():
                interrupts.defer()
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGINT


def test_ignored_signals_stay_ignored(arlm: Run) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        options = [*FAMILIES["pixels"], *COMMON, *at("on_train_batch_end", 2, "SIGHUP")]
        assert arlm("fit", *options, "--run-name", "run").code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_stop_together(rank: int, arlm: Run) -> None:
    two = ["--trainer.strategy", "ddp", "--trainer.devices", 2]
    options = [*FAMILIES["streams"], *COMMON, *two]

    def run(*more: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "arlm", "fit", *map(str, [*options, *more])]
        folders = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        environment = os.environ | {"PYTHONPATH": folders}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)

    assert run("--run-name", "whole").returncode == 0
    moment = [*at("on_after_backward", 6, "SIGINT"), f"--trainer.callbacks.rank={rank}"]
    assert run("--run-name", "cut", *moment).returncode == 130
    assert run("--run-name", "cut", "--resume").returncode == 0
    assert outcome("cut") == outcome("whole")


@pytest.mark.parametrize("family", [pytest.param("pairs", marks=pytest.mark.slow), "streams"])
def test_two_signals_in_one_validation(family: str, arlm: Run) -> None:
    # The resumed run begins with the validation, and is stopped before it trains a batch.
    options = [*FAMILIES[family], *COMMON]
    arlm("fit", *options, "--run-name", "whole")
    expected = outcome("whole")
    stop = at("on_validation_batch_end", 10)
    for resumed in ([], ["--resume"]):
        cut = arlm("fit", *options, *stop, "--run-name", "cut", *resumed)
        assert cut.code == 143, cut.err
        assert "stopped by SIGTERM at step 10" in cut.err
    assert_resumes_to(expected, arlm, options, "cut")
