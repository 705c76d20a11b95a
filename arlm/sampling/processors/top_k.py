"""Top-k: only the k likeliest tokens.

References:
    | Hierarchical Neural Story Generation (Fan, Lewis, Dauphin, 2018)
    | https://arxiv.org/abs/1805.04833
"""

from dataclasses import dataclass

from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.selection import top_k


@dataclass(frozen=True)
class TopK(LogitsProcessor):
    """Keep exactly `k` tokens (all of them where V <= k); of equal ones the first are kept.

    Order: any place after the penalties; temperature does not change what is kept.

    Args:
        k: at least 1.
    """

    k: int

    def __post_init__(self) -> None:
        require(self.k >= 1, "top_k", self.k, "choose at least 1")

    def rule(self) -> tuple[str, float]:
        return "top_k", self.k

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        return top_k(logits, self.k)
