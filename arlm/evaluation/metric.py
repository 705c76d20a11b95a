"""The likelihood of a split as a torchmetrics Metric, summed over batches and processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from arlm.core import Batch
from arlm.evaluation.likelihood import figures
from arlm.evaluation.weights import scored_weights


class Likelihood(Metric):
    """Sums nats, tokens and units of scored tokens in float64 over all processes; `compute` divides.

    Args:
        unit: name of the unit in the last figure's key: "byte" or "dim".
    """

    full_state_update = False
    nats: Tensor
    tokens: Tensor
    units: Tensor

    def __init__(self, unit: str = "token") -> None:
        super().__init__()
        self.unit = unit
        for name in ("nats", "tokens", "units"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, default=zero, dist_reduce_fx="sum")

    def update(self, log_prob: Tensor, batch: Batch) -> None:
        """Add a batch, given its log_prob (B, T) in nats; only tokens in `batch.scored` count, by their weights."""
        weights = scored_weights(batch)
        self.nats -= (log_prob.double() * weights)[batch.scored].sum()
        self.tokens += weights.sum()
        self.units += (batch.units.double() * weights).sum()

    def compute(self) -> dict[str, float]:
        """nll, ppl and bits_per_<unit>; see `figures`."""
        return figures(float(self.nats), float(self.tokens), float(self.units), self.unit)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any) -> Any:
        """Move to a device, but stay in float64 when the module is cast to half precision."""
        result = super()._apply(fn, *args)
        for name in ("nats", "tokens", "units"):
            setattr(self, name, getattr(self, name).double())
            self._defaults[name] = torch.zeros_like(getattr(self, name))
        return result
