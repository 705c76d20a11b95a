"""Dynamic temperature: low where the network is certain, high where it is not.

References:
    | llama.cpp, sampler "temp-ext" with the options --dynatemp-range and --dynatemp-exp
    | https://github.com/ggml-org/llama.cpp
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.core import log_softmax
from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor, entropy


@dataclass(frozen=True)
class DynamicTemperature(LogitsProcessor):
    """logits / T with T = low + (high - low) * (H / log n) ** exponent.

    H is the entropy in nats and n the number of tokens that are not masked, so H / log n is in [0, 1].

    Order: in place of temperature; a truncation before it changes H and n.

    Args:
        low: temperature where one token has all probability, above 0.
        high: temperature of a uniform distribution, at least `low`; low = high = 1 changes nothing.
        exponent: above 0; higher values keep the temperature low for longer.
    """

    low: float
    high: float = 1.0
    exponent: float = 1.0

    def __post_init__(self) -> None:
        require(0 < self.low < math.inf, "dynamic_temperature", self.low, "choose low above 0")
        mend = f"choose at least low, {self.low}"
        require(self.low <= self.high < math.inf, "dynamic_temperature:high", self.high, mend)
        mend = "choose above 0"
        require(0 < self.exponent < math.inf, "dynamic_temperature:exponent", self.exponent, mend)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.low == self.high == 1:
            return logits
        exact = logits.double()
        nats = log_softmax(exact)
        most = (nats > -torch.inf).sum(-1, keepdim=True).clamp(min=2).double().log()
        share = (entropy(nats, nats.exp()) / most).clamp(0, 1) ** self.exponent
        # The likeliest token is at 0, so that no quotient overflows; a softmax does not change.
        shifted = exact - exact.amax(-1, keepdim=True)
        return (shifted / (self.low + (self.high - self.low) * share)).to(logits.dtype)
