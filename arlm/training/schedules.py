"""Learning-rate schedules, and the number of steps that they are for."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from arlm.errors import UserError, require


class WarmupCosine(LambdaLR):
    """Linear warm-up, then half a cosine down to a fraction of the peak learning rate.

    Args:
        optimizer: holds the peak learning rate.
        total_steps: optimizer steps of the run.
        warmup: steps until the peak is reached.
        final: last learning rate divided by the peak, in [0, 1].

    References:
        | SGDR: Stochastic Gradient Descent with Warm Restarts (Loshchilov, Hutter, 2017)
        | https://arxiv.org/abs/1608.03983
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup: int = 100, final: float = 0.1
    ) -> None:
        require(warmup >= 0, "model.scheduler.warmup", warmup, "choose at least 0")
        require(0 <= final <= 1, "model.scheduler.final", final, "choose 0 to 1")

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))

        super().__init__(optimizer, factor)


class HoldThenDecay(LambdaLR):
    """Zaremba's schedule: constant for some epochs, then multiplied by a factor at each epoch.

    Args:
        optimizer: holds the first learning rate.
        total_steps: optimizer steps of the run.
        epochs: number of epochs of the run.
        hold: number of epochs at the first learning rate.
        factor: multiplier at each later epoch, in (0, 1].

    References:
        | Recurrent Neural Network Regularization (Zaremba et al., 2014), section 4.1
        | https://arxiv.org/abs/1409.2329
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, epochs: int, hold: int, factor: float
    ) -> None:
        require(1 <= hold <= epochs, "model.scheduler.hold", hold, f"choose 1 to epochs, {epochs}")
        require(0 < factor <= 1, "model.scheduler.factor", factor, "choose above 0, up to 1")
        length = max(1, total_steps // epochs)
        super().__init__(optimizer, lambda step: factor ** max(0, step // length + 1 - hold))


def planned_steps(trainer: Any) -> int:
    """Number of optimizer steps in the whole run.

    Lightning's own estimate is not used for runs counted in epochs: it reads from the loader before a
    checkpoint has restored the loader's position, and the epoch would start again from its first batch.

    Raises:
        UserError: it is unlimited.
    """
    if trainer.max_epochs == -1 or trainer.datamodule is None:
        estimated = trainer.estimated_stepping_batches
        if math.isfinite(estimated):
            return int(estimated)
        raise UserError(
            "trainer.max_steps: the schedule needs the length of the run; "
            "set trainer.max_steps or trainer.max_epochs"
        )
    batches, limit = len(trainer.datamodule.train_dataloader()), trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * trainer.max_epochs
    return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)
