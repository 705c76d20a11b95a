"""`fit --resume` and `--ckpt_path`: which checkpoint is continued, where, and what is refused."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from conftest import ROOT, Result, run_arlm

from arlm.checkpoints import summarise
from arlm.errors import UserError
from arlm.storage import FolderLock

TINY = ["--model.net.width", 4, "--model.net.depth", 1, "--trainer.accelerator", "cpu"]
QUICK = ["--samples.n", 0, "--trainer.limit_val_batches", 1, "--trainer.limit_train_batches", 3]
FIT = ["fit", "--config", ROOT / "configs/images/digits_pixelcnn.yaml", *TINY, *QUICK]
CHECKPOINTS = Path("runs/a/version_0/checkpoints")


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A run of two epochs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    done = run_arlm(*FIT, "--trainer.max_epochs", 2, "--run-name", "a")
    assert done.code == 0, done.err
    return done


def fit(*options: object, epochs: int = 3, name: str = "a") -> Result:
    return run_arlm(*FIT, "--trainer.max_epochs", epochs, "--run-name", name, *options)


@pytest.mark.parametrize("options", [["--resume"], ["--ckpt_path", "last"]], ids=str)
def test_resume_continues_the_newest_version_in_its_folder(first: Result, options: list) -> None:
    done = fit(*options)
    assert done.code == 0, done.err
    assert done.out == "runs/a/version_0\n"
    assert summarise(CHECKPOINTS / "last.ckpt").run["step"] == 9
    starts = json.loads(Path("runs/a/version_0/run.json").read_text())
    assert len(starts) == 2
    assert starts[0]["data"] == starts[1]["data"]
    assert starts[0]["seed"] == "0"
    assert {"revision", "versions", "machine", "command"} <= set(starts[0])
    config = Path("runs/a/version_0/config.yaml").read_text()
    assert "ckpt_path: null" in config
    assert "resume: false" in config


def test_what_cannot_be_resumed_is_an_error(first: Result) -> None:
    nothing = fit("--resume", name="b").error()
    assert "--resume: there is no run in 'runs/b'; start it without --resume" in nothing
    assert not Path("runs/b").exists()
    Path("runs/a/version_2").mkdir()  # of `arlm test`, say
    Path("runs/a/version_1").mkdir()
    Path("runs/a/version_1/run.json").write_text("[]")
    unfinished = fit("--resume").error()
    assert (
        "'runs/a/version_1' has no checkpoints/last.ckpt: it ended before its first" in unfinished
    )
    assert "beside --resume" in fit("--resume", "--ckpt_path", "x.ckpt").error()
    assert "no logger writes" in fit("--resume", "--trainer.logger", "false", name="null").error()


def test_ckpt_path_is_the_last_checkpoint_of_a_run_and_starts_another_version(
    first: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arlm.training.objectives import Likelihood

    best = CHECKPOINTS / "best.ckpt"
    contents = torch.load(best, weights_only=True)
    keeper = next(v for k, v in contents["callbacks"].items() if "RunCheckpoint" in k)
    score = float(keeper["best_model_score"])
    real = Likelihood.figures

    def worse(*arguments) -> dict[str, float]:
        return {name: value + 10 for name, value in real(*arguments).items()}

    monkeypatch.setattr(Likelihood, "figures", worse)
    for path in ("runs/a", "a", "runs/a/version_0", str(CHECKPOINTS / "last.ckpt")):
        done = fit("--ckpt_path", path)
        assert done.code == 0, done.err
        folder = Path(done.out.strip())
        assert folder.name != "version_0"
        assert summarise(folder / "checkpoints/last.ckpt").run["step"] == 9
        kept = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
        assert kept["global_step"] == contents["global_step"]
        state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["callbacks"]
        keeper = next(v for k, v in state.items() if "RunCheckpoint" in k)
        assert float(keeper["best_model_score"]) == score
        assert (
            Path(keeper["best_model_path"]).resolve()
            == (folder / "checkpoints/best.ckpt").resolve()
        )
        shutil.rmtree(folder)  # so that version_0 is the newest again


def test_versions_of_other_verbs_are_passed_over(first: Result) -> None:
    last = ["--ckpt_path", CHECKPOINTS / "last.ckpt"]
    assert run_arlm("validate", *FIT[1:], *last, "--run-name", "a").code == 0
    assert Path("runs/a/version_1").is_dir()
    done = fit("--resume")
    assert done.out == "runs/a/version_0\n", done.err


def test_a_run_that_another_process_writes_is_refused(
    first: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arlm.training import run_folder

    monkeypatch.setattr(run_folder, "WAIT", 0)
    lock = FolderLock(Path("runs/a/version_0"))
    refused = fit("--resume").error()
    assert "another process trains in 'runs/a/version_0'; wait for it" in refused
    lock.release()
    assert fit("--resume").code == 0


def test_two_runs_of_one_name_get_two_versions(tmp_path: Path) -> None:
    from arlm.training.run_folder import RunLogger

    loggers = [RunLogger(tmp_path, "run") for _ in range(3)]
    # Each looks for a version before any of them has made its folder.
    for logger in loggers:
        logger._get_next_version = lambda: 0  # type: ignore[method-assign]
    assert [logger.version for logger in loggers] == [0, 1, 2]


def test_figures_are_there_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from arlm.training.run_folder import RunLogger

    logger = RunLogger(tmp_path, "run")
    path = tmp_path / "run/version_0/metrics.csv"
    for step in range(3):
        logger.log_metrics({"train/nll": 1.5}, step)
        logger.save()
    assert path.read_text().splitlines() == ["step,train/nll", "0,1.5", "1,1.5", "2,1.5"]
    with monkeypatch.context() as patched:  # a column more, and a crash before the file is renamed
        patched.setattr(Path, "replace", Mock(side_effect=KeyboardInterrupt))
        logger.log_metrics({"val/nll": 2.5}, 2)
        with pytest.raises(KeyboardInterrupt):
            logger.save()
    assert path.read_text().splitlines() == ["step,train/nll", "0,1.5", "1,1.5", "2,1.5"]
    logger.save()
    assert path.read_text().splitlines()[-2:] == ["2,1.5,", "2,,2.5"]
    with path.open("a") as file:
        file.write("3,1.")  # of a process that was killed
    logger.finalize("success")
    again = RunLogger(tmp_path, "run", version=0)
    again.continue_from(3, validates=True)
    assert path.read_text().splitlines() == ["step,train/nll,val/nll", "0,1.5,", "1,1.5,", "2,1.5,"]
    again.continue_from(2, validates=False)
    assert path.read_text().splitlines() == ["step,train/nll,val/nll", "0,1.5,", "1,1.5,"]
    again.finalize("success")
    full = RunLogger(tmp_path, "full")
    full.log_metrics({"train/nll": 1.5}, 0)
    no_space = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr("arlm.training.run_folder.replace_file", no_space)
    with pytest.raises(UserError, match=r"run: cannot write '.*metrics.csv' \(No space left"):
        full.save()


def test_a_run_that_diverges_between_validations_keeps_its_checkpoints(first: Result) -> None:
    explode = ["--trainer.callbacks+=moments.Explode", "--trainer.callbacks.step=10"]
    often = ["--checkpoint.every_n_train_steps", 1, "--trainer.log_every_n_steps", 1000]
    validate = ["--trainer.check_val_every_n_epoch", 1]  # after 9 steps
    message = fit("--resume", *explode, *often, *validate, epochs=5).error()
    assert "model.optimizer: training diverged: nan or inf at step 11" in message
    for path, step in (("last.ckpt", 10), ("best.ckpt", 9)):
        contents = torch.load(CHECKPOINTS / path, weights_only=True)
        assert contents["global_step"] == step
        assert all(bool(weight.isfinite().all()) for weight in contents["state_dict"].values())


def test_a_finished_run_continues_with_its_next_epoch(first: Result) -> None:
    done = fit("--resume", "--model.optimizer.lr", 0.5, epochs=4)
    assert "training   12 steps of 32 rows, from step 6" in done.err
    assert "runs/a/version_0, 12 steps in" in done.err
    lr = "lr 0.5 given, but the optimizer continues with 0.005 of the checkpoint"
    assert f"note: model.optimizer: {lr}" in done.err


def test_a_link_to_the_best_checkpoint_is_not_written_through(first: Result) -> None:
    link = ["--checkpoint.save_last", "link", "--trainer.check_val_every_n_epoch", 1]
    stop = ["--trainer.callbacks+=moments.At", "--trainer.callbacks.hook=on_train_batch_end"]
    moment = [*stop, "--trainer.callbacks.step=4", "--trainer.callbacks.sent=SIGTERM"]
    assert fit(*link, *moment, name="linked").code == 143
    folder = Path("runs/linked/version_0/checkpoints")
    assert summarise(folder / "best.ckpt").run["step"] == 3
    assert summarise(folder / "last.ckpt").run["step"] == 4
    assert not (folder / "last.ckpt").is_symlink()


@pytest.mark.slow
def test_a_run_continues_under_fsdp2_and_back_in_its_own_folder(first: Result) -> None:
    for epochs, strategy in ((3, "fsdp2"), (4, "auto"), (5, "fsdp2")):
        options = ["--trainer.max_epochs", epochs, "--run-name", "a", "--resume"]
        command = [sys.executable, "-m", "arlm", *FIT, *options, "--trainer.strategy", strategy]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        last = CHECKPOINTS / "last.ckpt"
        assert summarise(last).run["step"] == 3 * epochs
        assert last.is_dir() == (strategy == "fsdp2")
        names = {path.name for path in CHECKPOINTS.iterdir()}
        assert names == {"best.ckpt", "last.ckpt"}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--model.optimizer", "torch.optim.SGD"], "model.optimizer: SGD given, but the checkpoint"),
        (["--data.batch_size", 7], "data.batch_size: 7 given"),
        (["--trainer.limit_train_batches", 1], "trainer: these options plan 3 steps, but the run has had 6"),
    ],
)  # fmt: skip
def test_a_refused_resume_changes_nothing(options: list, line: str, first: Result) -> None:
    files = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    refused = run_arlm(*FIT, "--trainer.max_epochs", 3, "--run-name", "a", "--resume", *options)
    assert line in refused.error()
    assert len(refused.err.splitlines()) <= 8  # the table of the run, and the error
    assert {path: path.read_bytes() for path in files} == files


def test_a_complete_run_says_so(first: Result) -> None:
    fewer = fit("--resume", epochs=1)
    nothing = "training  nothing: the run has had its 6 steps; to go on, give a larger"
    assert fewer.err == f"{nothing} --trainer.max_epochs (now 1)\n"
    assert fewer.out == "runs/a/version_0\n"
    done = fit("--resume", epochs=2)
    assert done.code == 0
    complete = "from step 6: it is complete; to go on, give a larger --trainer.max_epochs (now 2)"
    assert complete in done.err
    assert summarise(CHECKPOINTS / "last.ckpt").run["step"] == 6


def test_a_longer_run_counts_steps_as_an_unbroken_one(first: Result) -> None:
    # Two epochs end with a validation that belongs to no interval.
    fit("--resume", "--trainer.check_val_every_n_epoch", 3, epochs=6)
    fewer = fit("--resume", epochs=4).error()
    assert "trainer.max_epochs: 4 given, but the run has had 5 epochs; give more" in fewer
    whole = fit("--trainer.check_val_every_n_epoch", 3, epochs=6, name="whole")
    assert whole.code == 0

    def steps(name: str) -> list[str]:
        lines = Path(f"runs/{name}/version_0/metrics.csv").read_text().splitlines()
        step = lines[0].split(",").index("step")
        return [line.split(",")[step] for line in lines[1:]]

    assert steps("whole") == ["8", "17"]
    assert [step for step in steps("a") if step != "5"] == steps("whole")
