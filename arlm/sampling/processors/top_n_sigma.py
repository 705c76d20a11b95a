"""Top-n-sigma: tokens whose logits are within n standard deviations of the largest.

References:
    | Top-n sigma: Not All Logits Are You Need (Tang et al., 2024) | https://arxiv.org/abs/2411.07641
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor


@dataclass(frozen=True)
class TopNSigma(LogitsProcessor):
    """Keep logits >= max - n * sigma, the standard deviation of the logits that are not masked.

    Temperature does not change what is kept.

    Order: before other truncations, since sigma is that of the tokens which they leave.

    Args:
        n: above 0; inf changes nothing.
    """

    n: float

    def __post_init__(self) -> None:
        require(self.n > 0, "top_n_sigma", self.n, "choose above 0")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if math.isinf(self.n):
            return logits
        exact = logits.double()
        finite = exact > -torch.inf
        count = finite.sum(-1, keepdim=True)
        mean = exact.where(finite, 0).sum(-1, keepdim=True) / count
        variance = (exact - mean).square().where(finite, 0).sum(-1, keepdim=True) / count
        least = exact.amax(-1, keepdim=True) - self.n * variance.sqrt()
        return logits.masked_fill(exact < least, -torch.inf)
