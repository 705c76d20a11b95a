"""Max new tokens: a row ends with its end token at the latest after some tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor, end_token


@dataclass(frozen=True)
class MaxNewTokens(LogitsProcessor):
    """Force the end token as the n-th token after the prompt.

    `--max-new-tokens` and the argument `lengths` of `generate` stop drawing instead, without an end token.

    Order: before truncation, which may mask the end token.

    Args:
        n: tokens, the end token included, at least 1.
    """

    n: int

    def __post_init__(self) -> None:
        require(self.n >= 1, "max_new_tokens", self.n, "choose at least 1")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        end = end_token("max_new_tokens", history.spec)
        late = history.lengths - history.prompt_lengths >= self.n - 1
        if not bool(late.any()):
            return logits
        # Unlike `masked_fill`, a sum is vectorised.
        out = (
            logits
            + torch.zeros_like(late, dtype=logits.dtype).masked_fill_(late, -torch.inf)[:, None]
        )
        out[:, end] = logits[:, end]
        return out
