"""Min-p: only tokens at least a fraction as likely as the likeliest.

References:
    | Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs (Nguyen et al., 2024)
    | https://arxiv.org/abs/2407.01082
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.rows import by_rows, is_large


@dataclass(frozen=True)
class MinP(LogitsProcessor):
    """Keep tokens whose probability is at least `p` times the largest one.

    Order: after temperature, which changes the probabilities that it compares.

    Args:
        p: in [0, 1]; 0 changes nothing.
    """

    p: float

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, "min_p", self.p, "choose 0 to 1")

    def rule(self) -> tuple[str, float]:
        return "min_p", self.p

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.p == 0:
            return logits
        least = logits.amax(-1, keepdim=True) + math.log(self.p)
        if not is_large(logits):
            return logits.masked_fill(logits < least, -torch.inf)
        of_rows = iter(least.flatten().tolist())
        return by_rows(logits, lambda row: row.at_least(next(of_rows)))
