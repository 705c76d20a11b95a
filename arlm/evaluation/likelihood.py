"""Likelihood: nats, perplexity and bits per byte, word or dim from one sum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from arlm.core import Batch


class Likelihood(Metric):
    """Adds nats, tokens and units of scored tokens in float64; `compute` divides.

    Args:
        unit: what the data counts in, for the name of the last figure: "byte", "word", "dim".
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
        """Args: log_prob (B, T) nats; batch, whose `scored` tokens count."""
        self.nats -= log_prob.double()[batch.scored].sum()
        self.tokens += batch.scored.sum()
        self.units += batch.units.double()[batch.scored].sum()

    def compute(self) -> dict[str, Tensor]:
        """nll (nats per token), ppl = exp(nll), bits_per_<unit> = nats / (ln 2 * units)."""
        nll = self.nats / self.tokens
        bits = self.nats / (math.log(2) * self.units)
        return {"nll": nll, "ppl": nll.exp(), f"bits_per_{self.unit}": bits}

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any) -> Any:
        """Move to a device, but stay float64 when a module is cast to half precision."""
        result = super()._apply(fn, *args)
        for name in ("nats", "tokens", "units"):
            setattr(self, name, getattr(self, name).double())
            self._defaults[name] = torch.zeros_like(getattr(self, name))
        return result
