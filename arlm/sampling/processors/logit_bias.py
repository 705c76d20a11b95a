"""Logit bias: a constant for each of some tokens.

References:
    | OpenAI API reference, "logit_bias" | https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from arlm.errors import UserError, require
from arlm.sampling.processors import History, LogitsProcessor, check_tokens
from arlm.sampling.spelling import check_bound, single_tokens, spelled

if TYPE_CHECKING:
    from arlm.domains import Domain


@dataclass(frozen=True)
class LogitBias(LogitsProcessor):
    """logit + bias[token].

    Order: first; it applies to the network's own logits.

    Args:
        bias: nats of each token, at most 10,000; -inf bans it. A text in place of a token is the token that it is, and
            the one that it is after a space, unless that one has a bias of its own. None changes nothing.
    """

    bias: dict[str | int, float]

    def __post_init__(self) -> None:
        # A copy, so that a later change of the caller's dict does not differ from the cached arrays.
        object.__setattr__(self, "bias", dict(self.bias))
        for token, nats in self.bias.items():
            fits = nats == -math.inf or abs(nats) <= 1e4
            require(fits, f"logit_bias:{token}", nats, "choose -10000 to 10000, or -inf")

    def bind(self, domain: Domain) -> Self:
        field, bias, implied = "logit_bias", dict[str | int, float](), dict[str | int, float]()
        for key, nats in self.bias.items():
            tokens = [key]
            if isinstance(key, str):
                exact = spelled(field, key, domain)
                each = single_tokens(field, key, domain)
                tokens = list(exact) if len(exact) == 1 else []
                implied |= {token: nats for token in each if token not in tokens}
            for token in tokens:
                if token in bias:
                    raise UserError(f"{field}: token {token} has two values; give one")
                bias[token] = nats
        return replace(self, bias=implied | bias)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (n,) and their nats (n,)."""
        check_bound("logit_bias", self.bias)
        return np.array(list(self.bias), dtype=np.int64), np.array(list(self.bias.values()))

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if not self.bias:
            return logits
        numbers = self._arrays[0]
        check_tokens("logit_bias", (int(numbers.min()), int(numbers.max())), history.spec)
        tokens, nats = (torch.from_numpy(part).to(logits.device) for part in self._arrays)
        exact = logits.index_select(1, tokens).to(torch.promote_types(logits.dtype, torch.float32))
        after = exact + nats.to(exact.dtype)
        if after.dtype != logits.dtype:  # float16 ends at 65504
            after = after.clamp_(max=torch.finfo(logits.dtype).max).to(logits.dtype)
        return logits.index_copy(1, tokens, after)
