"""RunCheckpoint: which moments of a run are saved, so that a resumed run equals one that was never stopped.

    batch -> step -> [validation] -> batch -> step -> ...
                  |       |       |
                  |       |       +-- best.ckpt, if the validation improved; then last.ckpt
                  |       +-- last.ckpt, if a signal has come; the resumed run begins with the whole validation
                  +-- last.ckpt, if a signal has come

When an exception ends a step, the loops are set back to the moment before it, and last.ckpt is saved there.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from arlm.checkpoints.sharded import META, is_checkpoint, is_sharded
from arlm.errors import UserError
from arlm.storage import replacing
from arlm.training.finite import Diverged, check_finite
from arlm.training.history import command_to_resume
from arlm.training.interrupts import Interrupted, interrupts
from arlm.training.run_folder import RunLogger, first_process
from arlm.training.set_back import (
    epoch_is_complete,
    restart_validation,
    set_back,
    start_next_epoch,
    validation_follows,
)


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, with these differences:

    - a signal saves last.ckpt at the next moment between two steps, or in a validation, and ends the run;
    - an exception saves last.ckpt only, as it was after the last complete step; best.ckpt changes after a
      validation that improved, and never otherwise;
    - a checkpoint that is due before a validation is saved after it, since a resumed run would skip the validation;
    - a run that continues in a new folder keeps the best checkpoint of the old one.

    The arguments are those of ModelCheckpoint.
    """

    _waits = False  # for the validation that follows this batch
    _last_saved = -1  # batches that were read when last.ckpt was saved
    _stage = ""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self._stage = stage
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        interrupts.defer()
        validates = trainer.fit_loop.epoch_loop.val_loop.restarted_mid_evaluation
        within = bool(pl_module.resumed.get("accumulated"))  # some batches of the step are read
        if epoch_is_complete(trainer):
            start_next_epoch(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.continue_from(trainer.global_step, validates, within)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._waits = validation_follows(trainer)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        ends_epoch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if not self._waits and not ends_epoch:
            self._stop_if_interrupted(trainer, pl_module)
        self._waits = False

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any, **__: Any) -> None:
        # After the last step a resumed run would end without this validation, so it goes on. Several processes have
        # to agree first, and do so in the next step.
        resumable = trainer.world_size == 1 and trainer.global_step != pl_module.planned
        if interrupts.received is not None and is_fitting(trainer) and resumable:
            swap_averages_back(trainer, pl_module)
            restart_validation(trainer)
            self._stop(trainer, interrupts.received)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_validation_end(trainer, pl_module)
        fitting = is_fitting(trainer)
        by_steps = self._every_n_epochs < 1  # or by time: Lightning saves nothing at a validation
        if fitting and by_steps and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        if fitting and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._stop_if_interrupted(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self._defer_save_until_validation and not self._should_skip_saving_checkpoint(trainer):
            self._defer_save_until_validation = False
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)
        self._stop_if_interrupted(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        super().on_train_end(trainer, pl_module)
        interrupts.deferred = False  # everything is saved

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        try:
            self._save_after(trainer, pl_module, exception)
        finally:
            interrupts.deferred = False

    def _save_after(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        fitting = is_fitting(trainer) and trainer.global_step > 0
        # Several processes can only save together, and the others do not know of the exception.
        if not fitting or trainer.world_size > 1 or not self._should_save_on_exception(trainer):
            return
        if isinstance(exception, Interrupted | Diverged) or not set_back(trainer, pl_module):
            return
        with suppress(OSError, UserError):  # of a full disk, which may be the exception itself
            print(f"saved {self._save_last(trainer)}", file=sys.stderr)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = Path(state_dict["best_model_path"] or "none")
        moved = self._stage == TrainerFn.FITTING and state_dict.get("dirpath") != self.dirpath
        if moved and self.dirpath and self.monitor == state_dict.get("monitor"):
            own = Path(self.dirpath) / best.name
            if is_checkpoint(best) or is_checkpoint(own):
                if first_process():
                    copied(best, own)
                score, name = state_dict["best_model_score"], str(own)
                state_dict = state_dict | {
                    "dirpath": self.dirpath,
                    "best_model_path": name,
                    "best_k_models": {name: score},
                    "kth_best_model_path": name,
                    "kth_value": score,
                    "last_model_path": "",
                }
        super().load_state_dict(state_dict)

    def _save_topk_checkpoint(
        self, trainer: Trainer, monitor_candidates: dict[str, Tensor]
    ) -> None:
        self._defer_save_until_validation |= self._waits
        # Lightning would save the weights of this step for the figure of an earlier one.
        validated = getattr(trainer.lightning_module, "validated", trainer.global_step)
        stale = str(self.monitor).startswith("val/") and validated != trainer.global_step
        if not self._waits and not stale:
            super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _save_last_checkpoint(
        self, trainer: Trainer, monitor_candidates: dict[str, Tensor]
    ) -> None:
        if not self._waits:
            super()._save_last_checkpoint(trainer, monitor_candidates)
            self._last_saved = batches_of(trainer)

    def _save_last(self, trainer: Trainer) -> str:
        """Save last.ckpt, whatever `save_last` says, unless it is of this moment; returns its path."""
        path = self.format_checkpoint_name(
            self._monitor_candidates(trainer), self.CHECKPOINT_NAME_LAST
        )
        if not (self._last_saved == batches_of(trainer) and self.last_model_path == path):
            self.last_model_path = path
            if (
                trainer.is_global_zero and Path(path).is_symlink()
            ):  # `save_last: link`, to best.ckpt
                Path(path).unlink()
            self._save_checkpoint(trainer, path)
        return path

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        if trainer.world_size > 1:  # all processes have to stop; the one that writes tests again
            check_finite(
                trainer.lightning_module.parameters(), trainer.global_step, trainer.strategy
            )
        super()._save_checkpoint(trainer, filepath)

    def _stop_if_interrupted(self, trainer: Trainer, module: Any) -> None:
        number = module.agreed_signal if trainer.world_size > 1 else interrupts.received
        if number is not None and not trainer.fit_loop._should_accumulate():
            self._stop(trainer, number)

    def _stop(self, trainer: Trainer, number: int) -> None:
        """Save last.ckpt, say how to go on, and end the run."""
        stopped = Interrupted(number)
        line = f"stopped by {stopped} at step {trainer.global_step}"
        if trainer.fast_dev_run or not trainer.global_step:  # type: ignore[attr-defined]
            line = f"{line}; there is nothing to save"
        else:
            line = f"{line}: saved {self._save_last(trainer)}; to go on: {command_to_resume()}"
        if trainer.is_global_zero:
            print(line, file=sys.stderr, flush=True)
        raise stopped


def is_fitting(trainer: Trainer) -> bool:
    """Whether `fit` runs, and no validation by itself or before the first step."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def batches_of(trainer: Trainer) -> int:
    """Batches of the run that were read up to now."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def swap_averages_back(trainer: Trainer, module: Any) -> None:
    """Give the network the weights of training, which averages replace during a validation."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):
            callback.on_validation_epoch_end(trainer, module)


def average_no_constants(trainer: Trainer) -> None:
    """Let averages copy buffers: 0.9 c + 0.1 c is not c when rounded, so averaged constants would drift."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        average = getattr(callback, "_average_model", None)
        if isinstance(callback, WeightAveraging) and average is not None:
            average.use_buffers = False


def copied(source: Path, target: Path) -> bool:
    """Copy a checkpoint, as a whole; returns False if there is none."""
    if is_sharded(source):
        without = shutil.ignore_patterns(META)
        shutil.copytree(source, target, ignore=without, dirs_exist_ok=True)
        return copied(source / META, target / META)  # the last file makes it a checkpoint
    if not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, replacing(target) as written:
        shutil.copyfileobj(read, written, 2**24)
    return True
