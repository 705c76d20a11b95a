"""Forced tokens: what follows the prompt is given."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.sampling.processors import History, LogitsProcessor, check_tokens


@dataclass(frozen=True)
class ForcedTokens(LogitsProcessor):
    """The first tokens after the prompt are these: all others are masked.

    Such as the tag of a language, or a first word. A longer prompt has the same effect, where there is one.

    Order: before truncation, which may mask the forced token.

    Args:
        tokens: in their order. None changes nothing.
    """

    tokens: tuple[int, ...]

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if not self.tokens:
            return logits
        check_tokens("forced_tokens", self.tokens, history.spec)
        new = history.lengths - history.prompt_lengths
        forced = torch.tensor(self.tokens, device=logits.device)[new.clamp(0, len(self.tokens) - 1)]
        others = torch.ones_like(logits, dtype=torch.bool).scatter(1, forced[:, None], False)
        return logits.masked_fill(others & (new < len(self.tokens))[:, None], -torch.inf)
