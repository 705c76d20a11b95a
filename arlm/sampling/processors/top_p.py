"""Top-p (nucleus sampling): the smallest set of likeliest tokens with total probability p.

References:
    | The Curious Case of Neural Text Degeneration (Holtzman et al., 2020)
    | https://arxiv.org/abs/1904.09751
"""

from dataclasses import dataclass

from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.selection import top_p


@dataclass(frozen=True)
class TopP(LogitsProcessor):
    """Keep the likeliest tokens until their total probability reaches `p`; of equal ones the first.

    Probabilities are summed in float64 from the likeliest token: in float32 from the least likely one,
    rounding sometimes changes which token is the last.

    Order: after temperature, which changes the probabilities that it adds.

    Args:
        p: in (0, 1]; 1 changes nothing.
    """

    p: float

    def __post_init__(self) -> None:
        require(0 < self.p <= 1, "top_p", self.p, "choose above 0 and at most 1")

    def rule(self) -> tuple[str, float]:
        return "top_p", self.p

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.p == 1:
            return logits
        return top_p(logits, self.p)
