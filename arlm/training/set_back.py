"""Set a run back to the moment before the step that an exception ended, in Lightning's loops and in arlm's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytorch_lightning import Trainer
from torch import Tensor

from arlm.data.order import ResumableLoader
from arlm.training.effort import Effort
from arlm.training.processes import own_part, restore_generators


@dataclass(frozen=True)
class StepStart:
    """What `set_back` restores: the state of this process before the first batch of a step.

    Args:
        epoch: number of the epoch.
        batches: complete batches of this epoch, and of all epochs.
        generators: see `own_part`.
        chunk_state: what the objective carries from batch to batch.
        effort: tokens and seconds.
    """

    epoch: int
    batches: tuple[int, int]
    generators: dict[str, Any]
    chunk_state: list[Tensor]
    effort: Effort


def step_start(trainer: Trainer, module: Any) -> StepStart:
    """The state between two steps, for hooks at the end or at the start of a batch."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    return StepStart(
        trainer.current_epoch,
        (progress.current.processed, progress.total.processed),
        own_part((), module.device),
        module.objective.chunk_state(),
        module.effort.copy(),
    )


def set_back(trainer: Trainer, module: Any) -> bool:
    """Set loops, generators and carried state back to where the interrupted step began.

    Returns: whether that was possible; it is not once the optimizer has begun to change the weights, or in a
    validation, whose end may have been reported to some callbacks and not to others.
    """
    start: StepStart | None = module.step_start
    loader: Any = trainer.fit_loop._combined_loader
    loaders = loader.flattened if loader is not None else []
    resumable = all(isinstance(each, ResumableLoader) for each in loaders)
    if start is None or trainer.validating or not resumable:
        return False
    loop = trainer.fit_loop.epoch_loop
    current, total = start.batches
    if start.epoch != trainer.current_epoch:  # the first batch of the next one
        current = 0
    progress: Any = loop.batch_progress
    for counts, number in ((progress.current, current), (progress.total, total)):
        counts.ready = counts.started = counts.processed = counts.completed = number
    progress.is_last_batch = False
    if validation_follows(trainer):
        # The resumed loop counts this step again when it skips the validation.
        loop._batches_that_stepped -= 1
    for each in loaders:
        each.yielded = current
    module.objective.restore(start.chunk_state)
    restore_generators(start.generators, module.device)  # last, since `restore` may draw from them
    module.forget_batches()
    module.effort = start.effort
    return True


def validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning validates after the current batch."""
    batches, fetcher = trainer.num_val_batches, trainer.fit_loop._data_fetcher
    some = any(batches) if isinstance(batches, list) else bool(batches)
    assert fetcher is not None  # in training
    validates = bool(trainer.enable_validation) and some
    return validates and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def restart_validation(trainer: Trainer) -> None:
    """Count the validation as begun and without a complete batch, so that the resumed run does all of it."""
    progress: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    progress.reset()
    progress.total.ready = progress.total.started = 1


def epoch_is_complete(trainer: Trainer) -> bool:
    """Whether a resumed run has all batches of its epoch, and the validation after them, behind it.

    So ends a run whose last validation belongs to no interval (`ValidateLastStep`), and one that a signal stopped at
    the end of an epoch.
    """
    fit, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    resumed = loop.restarting and (fit.restarted_mid_epoch or fit.restarted_on_epoch_end)
    return resumed and loop._num_ready_batches_reached() and not validation_follows(trainer)


def start_next_epoch(trainer: Trainer) -> None:
    """End a complete epoch; Lightning would train one more batch in it, to come to a validation."""
    fit: Any = trainer.fit_loop
    if fit.restarted_mid_epoch:
        fit.epoch_progress.increment_processed()
    for counts in (fit.epoch_progress.total, fit.epoch_progress.current):
        counts.completed = (
            counts.processed
        )  # of those of this run, Lightning may have set one already
    fit.epoch_loop._batches_that_stepped = (
        trainer.global_step
    )  # one less before the end of an epoch
    fit.reset_restart_stage()
    for loop in (fit, fit.epoch_loop, fit.epoch_loop.val_loop):
        loop._restarting = False
    for loader in fit._combined_loader.flattened:
        if isinstance(loader, ResumableLoader):
            loader.yielded = loader.order.skip = 0
