"""Temperature: sharpen (below 1) or flatten (above 1) the distribution."""

import math
from dataclasses import dataclass

from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor

EXACT = 0.01  # below it, quotients of logits may exceed the numbers of a format


@dataclass(frozen=True)
class Temperature(LogitsProcessor):
    """logits / value, which is p ** (1 / value) up to normalisation.

    Order: before truncations that depend on probabilities, and after penalties.

    Args:
        value: above 0; 1 changes nothing. The limit 0 is `Greedy`.
    """

    value: float

    def __post_init__(self) -> None:
        require(
            0 < self.value < math.inf,
            "temperature",
            self.value,
            "choose above 0, or the processor greedy",
        )

    def rule(self) -> tuple[str, float] | None:
        return None if self.value < EXACT else ("temperature", self.value)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.value < EXACT:
            # Shifted, so that the likeliest token is 0 and no quotient overflows; a softmax does not change.
            shifted = (logits - logits.amax(-1, keepdim=True)).double() / self.value
            return shifted.to(logits.dtype)
        return logits / self.value
