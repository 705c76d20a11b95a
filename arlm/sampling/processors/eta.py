"""Eta sampling: epsilon sampling with a threshold that falls where the entropy is high.

References:
    | Truncation Sampling as Language Model Desmoothing (Hewitt, Manning, Liang, 2022), section 4
    | https://arxiv.org/abs/2210.15191
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.core import log_softmax
from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor, entropy
from arlm.sampling.rows import Row, by_rows, is_large


@dataclass(frozen=True)
class Eta(LogitsProcessor):
    """Keep tokens of probability min(epsilon, sqrt(epsilon) * exp(-H)) or more, and the likeliest.

    H is the entropy in nats. Of equally likely tokens all are kept.

    Order: after temperature, which changes the probabilities that it compares.

    Args:
        epsilon: in [0, 1); 0 changes nothing, 0.0003 to 0.004 are usual.
    """

    epsilon: float

    def __post_init__(self) -> None:
        require(0 <= self.epsilon < 1, "eta", self.epsilon, "choose 0 or more, below 1")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.epsilon == 0:
            return logits
        if is_large(logits):
            return by_rows(logits, self._kept, entropies=True)
        nats = log_softmax(logits.double())
        least = math.log(self.epsilon) / 2 - entropy(nats, nats.exp())
        least = least.clamp(max=math.log(self.epsilon)).minimum(nats.amax(-1, keepdim=True))
        return logits.masked_fill(nats < least, -torch.inf)

    def _kept(self, row: Row) -> Tensor:
        limit = math.log(self.epsilon)
        least = min(limit, limit / 2 - row.entropy)
        return row.at_least(row.highest + min(math.log(row.total) + least, 0.0))
