"""Top-p, the nucleus: the fewest tokens that hold probability p.

References:
    | The Curious Case of Neural Text Degeneration (Holtzman et al., 2020)
    | https://arxiv.org/abs/1904.09751
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import LogitsProcessor


@dataclass(frozen=True)
class TopP(LogitsProcessor):
    """Keep the likeliest tokens up to and with the one that reaches `p`; of equal ones the first.

    Sums run from the likeliest token in float64: from the small end in float32 the border token is
    wrong now and then.

    Args:
        p: in (0, 1].
    """

    p: float

    def __post_init__(self) -> None:
        require(0 < self.p <= 1, "top_p", self.p, "choose above 0 and at most 1")

    def __call__(self, logits: Tensor, history: Tensor) -> Tensor:
        probability = logits.double().softmax(-1)
        ordered, order = probability.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered  # held by likelier tokens
        # A token is not needed once those before it hold p; 1e-12 forgives the rounding of the sum.
        keep = before < self.p - 1e-12
        keep[..., 0] = True
        return logits.masked_fill(~torch.zeros_like(keep).scatter(-1, order, keep), -torch.inf)
