"""Learning-rate schedules."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from arlm.errors import require


class WarmupCosine(LambdaLR):
    """Linear warm-up, then half a cosine down to a fraction of the peak.

    Args:
        optimizer: holds the peak learning rate.
        total_steps: of the run.
        warmup: steps until the peak is reached.
        final: last learning rate over the peak, in [0, 1].

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
