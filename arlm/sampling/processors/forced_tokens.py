"""Forced tokens: what follows the prompt is given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from arlm.sampling.processors import History, LogitsProcessor, check_tokens
from arlm.sampling.spelling import check_bound, spelled

if TYPE_CHECKING:
    from arlm.domains import Domain


@dataclass(frozen=True)
class ForcedTokens(LogitsProcessor):
    """The first tokens after the prompt are these: all others are masked.

    Such as the tag of a language, or a first word. A longer prompt has the same effect, where there is one.

    Order: before truncation, which may mask the forced token.

    Args:
        tokens: in their order; a text stands for its tokens, as it is written. None changes nothing.
    """

    tokens: tuple[str | int, ...]

    def bind(self, domain: Domain) -> Self:
        field = "forced_tokens"
        each = (spelled(field, t, domain) if isinstance(t, str) else (t,) for t in self.tokens)
        return replace(self, tokens=tuple(chain.from_iterable(each)))

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if not self.tokens:
            return logits
        check_bound("forced_tokens", self.tokens)
        check_tokens("forced_tokens", self.tokens, history.spec)  # type: ignore[arg-type]
        new = history.lengths - history.prompt_lengths
        forced = torch.tensor(self.tokens, device=logits.device)[new.clamp(0, len(self.tokens) - 1)]
        others = torch.ones_like(logits, dtype=torch.bool).scatter(1, forced[:, None], False)
        return logits.masked_fill(others & (new < len(self.tokens))[:, None], -torch.inf)
