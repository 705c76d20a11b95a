"""A callback that sends a signal or raises an exception at one moment of a run, or breaks the weights."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

import pytorch_lightning as pl

HOOKS = (
    "on_fit_start",
    "on_train_batch_start",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_validation_start",
    "on_validation_batch_end",
    "on_validation_end",
)


class At(pl.Callback):
    """Sends a signal to the process, or raises RuntimeError, at the first call of a hook at a step or after it.

    Args:
        hook: name of the hook.
        step: number of complete steps.
        sent: name of the signal; "" raises.
        rank: the process that does it.
    """

    def __init__(self, hook: str, step: int, sent: str = "SIGTERM", rank: int = 0) -> None:
        assert hook in HOOKS
        self.step, self.sent, self.rank, self.done = step, sent, rank, False
        setattr(self, hook, self._act)

    def _act(self, trainer: Any, *_: Any, **__: Any) -> None:
        if trainer.global_step < self.step or trainer.global_rank != self.rank or self.done:
            return
        self.done = True
        if not self.sent:
            raise RuntimeError("planted")
        os.kill(os.getpid(), getattr(signal, self.sent))


class Explode(pl.Callback):
    """Puts nan into the weights before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            next(module.net.parameters()).data.fill_(math.nan)
