"""Logit bias: a constant for each of some tokens.

References:
    | OpenAI API reference, "logit_bias" | https://platform.openai.com/docs/api-reference
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor, check_tokens


@dataclass(frozen=True)
class LogitBias(LogitsProcessor):
    """logit + bias[token].

    Order: first; it applies to the network's own logits.

    Args:
        bias: nats of each token, at most 10,000; -inf bans it. None changes nothing.
    """

    bias: dict[int, float]

    def __post_init__(self) -> None:
        for token, nats in self.bias.items():
            fits = nats == -math.inf or abs(nats) <= 1e4
            require(fits, f"logit_bias:{token}", nats, "choose -10000 to 10000, or -inf")

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (n,) and their nats (n,)."""
        return np.array(list(self.bias), dtype=np.int64), np.array(list(self.bias.values()))

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if not self.bias:
            return logits
        tokens, nats = (torch.from_numpy(part).to(logits.device) for part in self._arrays)
        check_tokens("logit_bias", (min(self.bias), max(self.bias)), history.spec)
        exact = logits.index_select(1, tokens).to(torch.promote_types(logits.dtype, torch.float32))
        after = exact + nats.to(exact.dtype)
        if after.dtype != logits.dtype:  # float16 ends at 65504
            after = after.clamp_(max=torch.finfo(logits.dtype).max).to(logits.dtype)
        return logits.index_copy(1, tokens, after)
