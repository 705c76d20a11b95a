"""What reliability costs: the checks of a step, and a checkpoint that is verified and synchronised.

python -m tools.bench.reliability [--rounds 9]

A small PixelCNN (48,000 weights) is trained on digits with the defaults of `arlm fit`, and the functions that are called
for the sake of reliability in each step are timed: the state that an exception is set back to, signals, and figures
that are not finite. Its checkpoint is written in turn with and without fsync, and with and without the test for nan
and inf. Times are CPU time of this process, medians over the rounds.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch

from arlm.models.pixelcnn import PixelCNN
from arlm.training import callbacks, module
from arlm.training.callbacks import AtomicCheckpointIO
from arlm.training.checkpointing import RunCheckpoint
from arlm.training.module import AutoregressiveModule
from datamodules.digits import Digits
from tools.bench.timing import machine, median

STEPS = 200
LAST = "last.ckpt"
# Called in each step: the second includes Lightning's own hook, which it calls.
CHECKS = (
    (module, "step_start"),
    (RunCheckpoint, "on_train_batch_end"),
    (module, "check_finite"),
)


def trainer(folder: str, steps: int) -> pl.Trainer:
    """A Trainer that saves nothing before the end."""
    return pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        gradient_clip_val=1.0,
        log_every_n_steps=25,
        callbacks=[RunCheckpoint(folder, every_n_train_steps=10**6)],
    )


class Timed:
    """CPU time that a function takes, for `patch`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        started = time.process_time()
        try:
            return self.function(*arguments, **options)
        finally:
            self.seconds += time.process_time() - started

    def __get__(self, owner: Any, _: type) -> Callable[..., Any]:
        return partial(self, owner)


def steps(data: Digits, folder: str) -> tuple[float, float]:
    """CPU milliseconds of a step, and of the checks in it."""
    torch.manual_seed(0)
    net = partial(PixelCNN, width=16, depth=8)
    trained = AutoregressiveModule(data.spec, net, domain=data.domain)
    run = trainer(folder, STEPS)
    checks = []
    with ExitStack() as stack:
        for owner, name in CHECKS:
            checks.append(Timed(getattr(owner, name)))
            stack.enter_context(patch.object(owner, name, checks[-1]))
        started = time.process_time()
        run.fit(trained, data)
        seconds = time.process_time() - started
    run.save_checkpoint(Path(folder) / LAST)
    return seconds / STEPS * 1000, sum(check.seconds for check in checks) / STEPS * 1000


def saved(contents: dict, path: Path) -> float:
    """CPU milliseconds of a checkpoint."""
    started = time.process_time()
    AtomicCheckpointIO().save_checkpoint(contents, path)
    return (time.process_time() - started) * 1000


def paired(
    action: Callable[[], float], without: Callable[[], AbstractContextManager], rounds: int
) -> tuple[float, float, float]:
    """Medians with and without a check, and the median of the differences of pairs.

    Args:
        action: is timed.
        without: takes the check away for the time of a block.
        rounds: pairs, whose order alternates.
    """
    times: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(rounds + 1):
        for checks in (True, False) if turn % 2 else (False, True):
            with nullcontext() if checks else without():
                milliseconds = action()
            if turn:
                times[checks].append(milliseconds)
    differences = [a - b for a, b in zip(times[True], times[False], strict=True)]
    return median(times[True]), median(times[False]), median(differences)


def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="pairs of measurements (default 9)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    data = Digits()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ckpt"
        found = [steps(data, folder) for _ in range(options.rounds)]
        step, checks = (median([each[i] for each in found]) for i in (0, 1))
        share = 100 * median([checks / step for step, checks in found])
        print(f"checks of a step: {checks:.3f} ms of {step:.3f} ms, {share:.2f} %")
        last = Path(folder) / LAST
        contents = torch.load(last, weights_only=True)
        write = partial(saved, contents, path)
        unsynchronised = partial(patch, "os.fsync", lambda handle: None)
        show("fsync of a checkpoint", *paired(write, unsynchronised, 20 * options.rounds))
        untested = partial(patch.object, callbacks, "check_finite", lambda *_: None)
        show("test of a checkpoint for nan and inf", *paired(write, untested, 20 * options.rounds))
        print(f"a checkpoint of {last.stat().st_size:,} bytes")


def show(name: str, checked: float, bare: float, difference: float) -> None:
    """Print one cost."""
    share = 100 * difference / bare
    print(
        f"{name}: {checked:.3f} ms with, {bare:.3f} ms without: {difference:+.3f} ms, {share:+.2f} %"
    )


if __name__ == "__main__":
    main()
