"""Top-h: the likeliest tokens, while they hold at most a share of the entropy.

References:
    | Top-H Decoding: Adapting the Creativity and Coherence with Bounded Entropy in Text Generation
    | (Potraghloo et al., 2025) | https://arxiv.org/abs/2509.02510
"""

from dataclasses import dataclass

from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.selection import top_h


@dataclass(frozen=True)
class TopH(LogitsProcessor):
    """Keep the likeliest tokens while their sum of -p log p is at most share * H, and at least the likeliest.

    H is the entropy of the whole distribution; transformers takes that of the 100 likeliest tokens.

    Order: after temperature, which changes the probabilities that it adds.

    Args:
        share: in (0, 1]; 1 changes nothing.
    """

    share: float

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, "top_h", self.share, "choose above 0 and at most 1")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.share == 1:
            return logits
        return top_h(logits, self.share)
