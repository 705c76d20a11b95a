"""Progress of training: lines for logs and pipes, a bar for terminals; both with the figures of the current step."""

from __future__ import annotations

import sys
import time
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.trainer.states import TrainerFn


class Pace:
    """Tokens a second and the time that is left, measured from the first step of this process.

    Validation and samples count for the time that is left, but not for tokens a second.
    """

    def __init__(self) -> None:
        self._started = self._stopped = 0.0
        self._paused, self._step, self._tokens = 0.0, 0, 0

    def start(self, trainer: Trainer, module: Any) -> None:
        """Start the clock."""
        self._started, self._paused = time.monotonic(), 0.0
        self._step, self._tokens = trainer.global_step, module.effort.tokens

    def pause(self) -> None:
        """Validation starts."""
        self._stopped = time.monotonic()

    def resume(self) -> None:
        """Validation has ended."""
        self._paused += time.monotonic() - self._stopped

    def shown(self, trainer: Trainer, module: Any) -> dict[str, str]:
        """Both for people, by name; empty before the first step."""
        elapsed, done = time.monotonic() - self._started, trainer.global_step - self._step
        training = elapsed - self._paused
        if done <= 0 or training <= 0:
            return {}
        tokens = (module.effort.tokens - self._tokens) * trainer.world_size
        left = (steps_of(trainer, module) - trainer.global_step) * elapsed / done
        return {"tokens/s": f"{tokens / training:,.0f}", "left": duration(left)}


class LineProgress(Callback):
    """Progress of `fit` as plain lines of the first process, for logs and pipes, where a bar is unreadable.

    Args:
        seconds: least time between two lines of training progress.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self._last = -float("inf")
        self._pace = Pace()

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._pace.start(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        finished = trainer.global_step == pl_module.planned
        if time.monotonic() - self._last >= self.seconds or finished:
            self._last = time.monotonic()
            pace = self._pace.shown(trainer, pl_module)
            rest = [f"{pace['tokens/s']} tokens/s", f"{pace['left']} left"] if pace else []
            self._line(trainer, pl_module, step_figures(pl_module), *rest)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pace.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._pace.resume()
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            figures = {k: float(v) for k, v in trainer.callback_metrics.items() if "val/" in k}
            self._line(trainer, pl_module, figures)

    def _line(self, trainer: Trainer, module: Any, figures: dict[str, float], *rest: str) -> None:
        if trainer.is_global_zero:
            step = f"step {trainer.global_step}/{steps_of(trainer, module):.0f}"
            parts = [step, *(f"{name} {value:.4f}" for name, value in figures.items()), *rest]
            text = "  ".join([f"epoch {trainer.current_epoch}", *parts])
            print(text, file=sys.stderr, flush=True)


class Bar(TQDMProgressBar):
    """A progress bar with the figures of the current step, tokens a second, and the time left of the whole run."""

    def __init__(self) -> None:
        super().__init__()
        self._pace = Pace()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # type: ignore[override]
        super().on_train_start(trainer, pl_module)
        self._pace.start(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._pace.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pace.resume()
        super().on_validation_end(trainer, pl_module)

    def get_metrics(self, trainer: Trainer, pl_module: Any) -> dict[str, Any]:  # type: ignore[override]
        """What the bar shows."""
        monitored = f"val/{pl_module.objective.monitor}"
        last = {k: float(v) for k, v in trainer.callback_metrics.items() if k == monitored}
        figures = {k: v for k, v in step_figures(pl_module).items() if "ppl" not in k} | last
        shown = {name: f"{value:.3f}" for name, value in figures.items()}
        step = f"{trainer.global_step}/{steps_of(trainer, pl_module):.0f}"
        return {"step": step} | shown | self._pace.shown(trainer, pl_module)


def step_figures(module: Any) -> dict[str, float]:
    """Training figures of the last step, over all processes; empty for objectives without steps."""
    if module.step_sums is None:
        return {}
    figures = module.objective.figures(module.step_sums, module.net.spec.unit)
    return {f"train/{name}": value for name, value in figures.items()}


def steps_of(trainer: Trainer, module: Any) -> float:
    """Optimizer steps of the whole run."""
    return trainer.estimated_stepping_batches if module.planned is None else module.planned


def duration(seconds: float) -> str:
    """A time for people: "45 s", "1 min 45 s", "2 h 3 min"."""
    whole = round(max(0.0, seconds))
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
