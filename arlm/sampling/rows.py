"""Rows of logits over a large vocabulary, one by one on the CPU, in memory that stays in its cache.

A truncation compares the logits of a row with the lowest one that is kept. For comparisons NumPy is used, and for
what is masked `threshold`: their loops are vectorised where those of other functions are not. Devices other than the
CPU, and vocabularies below `LARGE`, take all rows in one call; the results are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LARGE = 2048  # tokens from which on a loop over rows is faster than one call
RANGE, SMALLEST = 690.0, 1e-300  # exp(-690) is just above 1e-300


class Row:
    """One row of logits (V,), with its exponentials where they are needed.

    Args:
        logits: (V,).
        memory: (1, V) float64, for the exponentials, or (2, V) for the differences too; new pages would take as long
            to get as they take.
        out: (V,), where `at_least` may write its result.
    """

    def __init__(self, logits: Tensor, memory: Tensor, out: Tensor | None = None) -> None:
        self.logits, self._memory, self.out = logits, memory, out
        self.values = as_array(logits)
        self.highest, self.lowest = float(self.values.max()), float(self.values.min())

    @property
    def is_finite(self) -> bool:
        """Whether the row has probabilities: not where all logits are -inf, or one is nan or inf."""
        return math.isfinite(self.highest)

    @cached_property
    def weights(self) -> np.ndarray:
        """exp(logits - highest), (V,) float64; 0 where the difference is below -690."""
        differences, weights = self._memory[0], self._memory[-1]
        differences.copy_(self.logits.detach()).sub_(self.highest)
        if self.highest - self.lowest < RANGE:
            return torch.exp(differences, out=weights).numpy()
        # A vectorised exp takes up to 200 times as long where its result underflows.
        torch.exp(differences.clamp_(min=-RANGE - 10), out=weights)
        return torch.threshold_(weights, SMALLEST, 0.0).numpy()

    @cached_property
    def total(self) -> float:
        """The sum of the weights."""
        return float(torch.from_numpy(self.weights).sum())

    @cached_property
    def entropy(self) -> float:
        """In nats, with memory for the differences."""
        weights = self.weights  # before the differences, which it computes
        return math.log(self.total) - float(weights @ self._memory[0].numpy()) / self.total

    def at_least(self, least: float) -> Tensor:
        """The logits with those below `least` at -inf."""
        if self.logits.dtype not in (torch.float32, torch.float64):
            return self.logits.masked_fill(self.logits.double() < least, -torch.inf)
        below = self.values.dtype.type(least)
        if below >= least:
            below = np.nextafter(below, self.values.dtype.type(-np.inf))
        # Unlike `masked_fill`, `threshold` is vectorised; it keeps what is above a number.
        if self.out is None:
            return F.threshold(self.logits, float(below), -torch.inf)
        return torch.ops.aten.threshold.out(self.logits, float(below), -torch.inf, out=self.out)

    def first(self, values: np.ndarray, lowest: float, size: int) -> Tensor:
        """Keep `size` logits: those whose value exceeds `lowest`, then the first of those that equal it.

        Args:
            values: (V,) numbers that do not fall where the logits rise.
            lowest: the smallest value that is kept.
            size: how many tokens are kept.
        """
        equal = np.flatnonzero(values == lowest)
        kept = self.at_least(float(self.values[equal].min()))  # different logits may be equal there
        if len(equal) > 1:
            first = size - np.count_nonzero(values > lowest)
            kept[torch.from_numpy(equal[first:])] = -torch.inf
        return kept


def is_large(logits: Tensor) -> bool:
    """Whether rows (..., V) are handled one by one."""
    return logits.device.type == "cpu" and logits.shape[-1] >= LARGE


def as_array(logits: Tensor) -> np.ndarray:
    """Logits as an array, which has no bfloat16; half precision becomes float32, and the order remains."""
    return logits.detach().to(torch.promote_types(logits.dtype, torch.float32)).numpy()


def by_rows(logits: Tensor, truncate: Callable[[Row], Tensor], entropies: bool = False) -> Tensor:
    """Truncate the rows of logits (..., V) one by one; those without probabilities stay as they are.

    Args:
        logits: of a floating point type, on the CPU.
        truncate: a new row (V,) of logits from a `Row`.
        entropies: whether it reads those of the rows.
    """
    rows = logits.reshape(-1, logits.shape[-1])
    memory = torch.empty(2 if entropies else 1, logits.shape[-1], dtype=torch.float64)
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    tracked = torch.is_grad_enabled() and logits.requires_grad
    for i, own in enumerate(rows):
        row = Row(own, memory, None if tracked else out[i])
        found = truncate(row) if row.is_finite else own
        if found is not row.out:
            out[i] = found
    return out.view_as(logits)
