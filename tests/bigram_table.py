"""A bigram whose probabilities are given: a world in which everything can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.core import Autoregressor, Spec

A, B, END = range(3)
SPEC = Spec(3, (4,), eos_id=END)
# p(next | a), p(next | b), p(next | the end), p(first)
BIGRAM = ((0.2, 0.7, 0.1), (0.6, 0.3, 0.1), (0.0, 0.0, 1.0), (0.5, 0.45, 0.05))


class Table(Autoregressor):
    """A row of probabilities after each token; the last row is that of the first token."""

    def __init__(self, spec: Spec, table: Sequence[Sequence[float]] = BIGRAM) -> None:
        super().__init__(spec)
        self.table: Tensor
        self.register_buffer("table", torch.tensor(table, dtype=torch.float64))

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self.table.log()[F.pad(tokens[:, :-1], (1, 0), value=-1)]


def bigram(length: int, table: Sequence[Sequence[float]] = BIGRAM) -> Table:
    """The bigram for rows of a length."""
    return Table(replace(SPEC, shape=(length,), vocab_size=len(table[0])), table)
