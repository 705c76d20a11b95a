"""DRY (don't repeat yourself): tokens that would continue a repetition become less likely, the longer it is.

    context   a b c x a b c      after "a b c" came x, and the context ends with it: n = 3 for x
    x         logit - multiplier * base ** (3 - allowed)

References:
    | DRY: A modern repetition penalty (Philipp Emanuel Weidmann, 2024)
    | https://github.com/oobabooga/text-generation-webui/pull/5677
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor, check_tokens
from arlm.sampling.spelling import check_bound, holding

if TYPE_CHECKING:
    from arlm.domains import Domain

MOST = 1e4  # nats of a penalty: such a token is never drawn


@dataclass(frozen=True)
class Dry(LogitsProcessor):
    """logit - multiplier * base ** (n - allowed) for tokens that would extend a repetition of n >= allowed tokens.

    n is the length of the longest end of the context that occurred before and was followed by the token then. It
    ends at a breaker, and breakers are not made less likely. A penalty is at most 10,000 nats.

    Order: before temperature and truncation, so that it applies to the network's own logits.

    Args:
        multiplier: nats, 0 to 100; 0 changes nothing, 0.8 is usual.
        base: 1 to 100; how fast the penalty grows.
        allowed: longest repetition without a penalty is one token shorter, at least 1.
        window: how many of the last tokens are searched; 0 for all.
        prompt: whether the tokens of the prompt are searched too.
        breakers: tokens that no repetition reaches across, such as that of the line break; a text stands for all
            tokens with this text in them.
    """

    multiplier: float
    base: float = 1.75
    allowed: int = 2
    window: int = 0
    prompt: bool = True
    breakers: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        require(0 <= self.multiplier <= 100, "dry", self.multiplier, "choose 0 to 100")
        require(1 <= self.base <= 100, "dry:base", self.base, "choose 1 to 100")
        require(self.allowed >= 1, "dry:allowed", self.allowed, "choose at least 1")
        require(self.window >= 0, "dry:window", self.window, "choose 0 or more")

    def bind(self, domain: Domain) -> Dry:
        each = (
            holding("dry:breakers", b, domain) if isinstance(b, str) else (b,)
            for b in self.breakers
        )
        return replace(self, breakers=tuple(dict.fromkeys(chain.from_iterable(each))))

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.multiplier == 0:
            return logits
        check_bound("dry:breakers", self.breakers)
        check_tokens("dry:breakers", self.breakers, history.spec)  # type: ignore[arg-type]
        tokens, repeated = self._repeated(history)
        if not bool((repeated >= self.allowed).any()):
            return logits
        longest = tokens.new_zeros(logits.shape).scatter_reduce_(1, tokens, repeated, "amax")
        longest = longest.gather(1, tokens)  # a token has the same number in each column
        nats = self.multiplier * self.base ** (longest - self.allowed).double()
        changed = (longest >= self.allowed) & ~torch.isin(tokens, tokens.new_tensor(self.breakers))
        given = logits.gather(1, tokens)
        after = (given - nats.clamp(max=MOST)).clamp(min=torch.finfo(logits.dtype).min)
        changed &= given > -torch.inf
        return logits.scatter(1, tokens, after.to(logits.dtype).where(changed, given))

    def _repeated(self, history: History) -> tuple[Tensor, Tensor]:
        """The tokens (B, T), and how many before each one are those at the end of the context, (B, T) int64."""
        width = int(history.lengths.max()) if len(history.lengths) else 0
        tokens, length = history.tokens[:, :width], history.lengths[:, None]
        columns = torch.arange(width, device=tokens.device)
        first = history.first(self.prompt, self.window)[:, None]
        equal, repeated = (columns > first) & (columns < length), torch.zeros_like(tokens)
        breakers = tokens.new_tensor(self.breakers)
        for n in range(min(self._longest(), width - 1)):
            last = tokens.gather(1, (length - 1 - n).clamp(min=0))
            same = (tokens == last) & (columns >= first) & ~torch.isin(last, breakers)
            equal = equal & torch.cat([same.new_zeros(len(same), n + 1), same[:, : -n - 1]], 1)
            if not bool(equal.any()):
                break
            repeated += equal
        return tokens, repeated

    def _longest(self) -> int:
        """A longer repetition has the same penalty."""
        if self.base == 1:
            return self.allowed
        more = math.log(MOST / self.multiplier) / math.log(self.base)
        return self.allowed + max(0, math.ceil(min(more, 2.0**31)))
