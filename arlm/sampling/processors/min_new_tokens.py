"""Min new tokens: a row may not end before it has some tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor, end_token


@dataclass(frozen=True)
class MinNewTokens(LogitsProcessor):
    """Mask the end token until `n` tokens follow the prompt.

    Order: before truncation, which then chooses among the other tokens.

    Args:
        n: tokens before the end, 0 or more; 0 changes nothing.
    """

    n: int

    def __post_init__(self) -> None:
        require(self.n >= 0, "min_new_tokens", self.n, "choose 0 or more")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        end = end_token("min_new_tokens", history.spec)
        if self.n == 0:
            return logits
        early = history.lengths - history.prompt_lengths < self.n
        out = logits.clone()
        out[:, end] = out[:, end].masked_fill(early, -torch.inf)
        return out
