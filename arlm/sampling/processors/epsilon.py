"""Epsilon sampling: only tokens of at least a given probability.

References:
    | Truncation Sampling as Language Model Desmoothing (Hewitt, Manning, Liang, 2022)
    | https://arxiv.org/abs/2210.15191
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.rows import Row, by_rows, is_large


@dataclass(frozen=True)
class Epsilon(LogitsProcessor):
    """Keep tokens of probability `epsilon` or more, and the likeliest (all of equal ones).

    Order: after temperature, which changes the probabilities that it compares.

    Args:
        epsilon: in [0, 1); 0 changes nothing, 0.0003 to 0.0009 are usual.
    """

    epsilon: float

    def __post_init__(self) -> None:
        require(0 <= self.epsilon < 1, "epsilon", self.epsilon, "choose 0 or more, below 1")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.epsilon == 0:
            return logits
        if is_large(logits):
            return by_rows(logits, self._kept)
        exact = logits.double()
        least = exact.logsumexp(-1, keepdim=True) + math.log(self.epsilon)
        least = least.minimum(exact.amax(-1, keepdim=True))
        return logits.masked_fill(exact < least, -torch.inf)

    def _kept(self, row: Row) -> Tensor:
        return row.at_least(row.highest + min(math.log(row.total) + math.log(self.epsilon), 0.0))
