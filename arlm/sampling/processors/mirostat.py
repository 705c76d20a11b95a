"""Mirostat: truncation that keeps the surprise of the drawn tokens near a target.

References:
    | Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity (Basu et al., 2021),
    | in the simpler form called version 2, without the estimate of Zipf's exponent
    | https://arxiv.org/abs/2007.14966
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.core import log_softmax
from arlm.errors import require
from arlm.sampling.processors import History, MemoryProcessor


@dataclass(frozen=True)
class Mirostat(MemoryProcessor):
    """Keep tokens of surprise -log2 p <= mu, at least the likeliest; then mu -= rate * (surprise - target).

    The surprise of a drawn token is that among the tokens that were kept. mu starts at twice the target.

    Order: after temperature, as the last processor, because it measures what the draw sees.

    Args:
        target: mean surprise of the drawn tokens, in bits; inf changes nothing.
        rate: how fast mu follows, above 0 and at most 1.
    """

    target: float
    rate: float = 0.1

    def __post_init__(self) -> None:
        require(self.target > 0, "mirostat", self.target, "choose a target above 0 bits")
        require(0 < self.rate <= 1, "mirostat:rate", self.rate, "choose above 0 and at most 1")

    def init(self, rows: int, device: torch.device) -> Tensor:
        """mu of each row, (rows,) float64 in bits."""
        return torch.full((rows,), 2 * self.target, dtype=torch.float64, device=device)

    def __call__(self, logits: Tensor, history: History, memory: Tensor) -> Tensor:  # type: ignore[override]
        if math.isinf(self.target):
            return logits
        dropped = -log_softmax(logits) / math.log(2) > memory[:, None]
        dropped = dropped.scatter(-1, logits.argmax(-1, keepdim=True), False)
        return logits.masked_fill(dropped, -torch.inf)

    def observe(self, tokens: Tensor, logits: Tensor, memory: Tensor) -> Tensor:
        nats = -log_softmax(logits.double()).gather(-1, tokens[:, None]).squeeze(-1)
        after = memory - self.rate * (nats / math.log(2) - self.target)
        return torch.where(nats.isfinite(), after, memory)  # a forced token may have probability 0
