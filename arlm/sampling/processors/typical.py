"""Locally typical sampling: tokens whose surprise is near the entropy.

References:
    | Locally Typical Sampling (Meister et al., 2023) | https://arxiv.org/abs/2202.00666
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.core import log_softmax
from arlm.errors import require
from arlm.sampling.prefixes import first_tokens
from arlm.sampling.processors import History, LogitsProcessor, entropy


@dataclass(frozen=True)
class Typical(LogitsProcessor):
    """Keep the fewest tokens of smallest abs(-log p - H) with total probability `mass`; of equal ones the first.

    H is the entropy. The likeliest token may be dropped, if it says less than the average one.

    Order: after temperature, which changes the probabilities that it adds.

    Args:
        mass: in (0, 1]; 1 changes nothing.
    """

    mass: float

    def __post_init__(self) -> None:
        require(0 < self.mass <= 1, "typical", self.mass, "choose above 0 and at most 1")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.mass == 1:
            return logits
        nats = log_softmax(logits.detach().double())
        probability = nats.exp()
        distance = (nats + entropy(nats, probability)).abs()
        # 1e-12 allows for rounding of the sum.
        goal = probability.new_full((1, 1), self.mass - 1e-12).expand(len(logits), 1)
        kept = first_tokens(distance, probability, goal)
        return logits.masked_fill(~kept, -torch.inf)
