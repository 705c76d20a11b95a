"""What marking a text and detecting the mark share: a hash of the last tokens, and the null distributions.

    key = mix(mix(secret key) ^ -width), then key = mix(key ^ token) for each token of the context, oldest first
    mix(key ^ candidate)        the random bits of a token that follows the context

The context of a position is the `width` tokens before it, all of them drawn: the first `width` tokens of a text are not
marked, and a prompt is part of no context. So a text is detected without its prompt, and texts after the same
prompt differ. Integers are hashed, so that a mark made on one device is found on every other.

References:
    | A Watermark for Large Language Models (Kirchenbauer et al., 2023) | https://arxiv.org/abs/2301.10226
    | Robust Distortion-free Watermarks for Language Models (Kuditipudi et al., 2023) | https://arxiv.org/abs/2307.15593
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from arlm.errors import UserError, require
from arlm.sampling.noise import mix, signed

if TYPE_CHECKING:
    from arlm.sampling.processors import History

WIDEST = 64  # tokens of a context


class Detection(NamedTuple):
    """What a text says of a mark."""

    tokens: int  # that were scored
    statistic: float  # what it measures has the name `Watermark.measures`
    expected: float  # the statistic's mean in texts without the mark
    z: float  # standard deviations above that mean
    p: float  # probability of a statistic at least as large in texts without the mark


class Watermark(ABC):
    """A mark that `key` makes while tokens are drawn, and finds again in the tokens alone."""

    key: int
    width: int  # tokens of a context
    name: ClassVar[str]
    measures: ClassVar[str]  # what the statistic of `detect` is

    @abstractmethod
    def scores(self, tokens: Tensor) -> Tensor:
        """What each token of (T,) has of the mark, given the context before it: (T - width, ...)."""

    @abstractmethod
    def detect(self, tokens: Tensor) -> Detection:
        """Test a text for the mark.

        Args:
            tokens: (T,) int64 on any device, without a prompt.

        Raises:
            UserError: no token has a context.
        """

    def check_width(self) -> None:
        """Refuse a width that is out of range."""
        fits = 1 <= self.width <= WIDEST
        require(fits, f"{self.name}:width", self.width, f"choose 1 to {WIDEST}")

    def secret(self) -> Tensor:
        """The lowest 64 bits of the key, () int64."""
        return torch.tensor(signed(self.key))

    def next_context(self, history: History) -> tuple[Tensor, Tensor]:
        """The context of each row's next token, (B, width), and the rows (B,) bool in which all of it was drawn."""
        columns = history.lengths[:, None] + torch.arange(
            -self.width, 0, device=history.lengths.device
        )
        drawn = history.lengths - history.prompt_lengths >= self.width
        if not history.tokens.shape[1]:
            return torch.zeros_like(columns), drawn
        inside = columns.clamp(min=0, max=history.tokens.shape[1] - 1)
        return history.tokens.gather(1, inside), drawn

    def occurred(self, context: Tensor, history: History) -> Tensor:
        """Rows (B,) bool in which a token was drawn after this context (B, width) before."""
        rows, length = history.tokens.shape
        if length <= self.width:
            return torch.zeros(rows, dtype=torch.bool, device=context.device)
        windows = history.tokens.unfold(1, self.width, 1)  # window i is before position i + width
        after = torch.arange(windows.shape[1], device=context.device) + self.width
        drawn = after >= history.prompt_lengths[:, None] + self.width
        drawn &= after < history.lengths[:, None]
        return ((windows == context[:, None]).all(-1) & drawn).any(1)

    def keys_of(self, contexts: Tensor) -> Tensor:
        """The keys (...) int64 of contexts (..., width)."""
        secret = self.secret().to(contexts.device)
        keys = mix(mix(secret) ^ -self.width).expand(contexts.shape[:-1])
        for token in contexts.unbind(-1):
            keys = mix(keys ^ token)
        return keys

    def keys_in(self, tokens: Tensor) -> Tensor:
        """The keys (T - width,) of the contexts in a text (T,); refused where there is none."""
        if len(tokens) <= self.width:
            raise UserError(
                f"text: {len(tokens)} tokens hold no context of {self.width} tokens and a token after it; "
                "give a longer text"
            )
        return self.keys_of(tokens.unfold(0, self.width, 1)[:-1])

    def bits_in(self, tokens: Tensor) -> Tensor:
        """The random bits (T - width,) of the tokens in a text (T,) that have a context."""
        return mix(self.keys_in(tokens) ^ tokens[self.width :])


def first_occurrences(numbers: Tensor) -> Tensor:
    """Indices (U,) of the first of equal numbers in (N,), in order."""
    distinct, which = numbers.unique(return_inverse=True)
    indices = torch.arange(len(numbers), device=numbers.device)
    first = indices.new_full((len(distinct),), len(numbers))
    return first.scatter_reduce_(0, which, indices, "amin").sort().values


def binomial_tail(hits: int, trials: int, share: float) -> float:
    """P(X >= hits) for X ~ Binomial(trials, share), by summing its terms."""
    k, n = torch.arange(hits, trials + 1).double(), torch.tensor(trials, dtype=torch.float64)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return _sum(ways + k * math.log(share) + (n - k) * math.log1p(-share))


def gamma_tail(statistic: float, shape: int) -> float:
    """P(X > statistic) for X ~ Gamma(shape, 1): the probability of fewer than `shape` events of a Poisson process."""
    k = torch.arange(shape).double()
    return _sum(torch.special.xlogy(k, statistic) - statistic - torch.lgamma(k + 1))


def normal_tail(z: float) -> float:
    """P(X > z) for X ~ N(0, 1)."""
    return math.erfc(z / math.sqrt(2)) / 2


def _sum(logs: Tensor) -> float:
    """The sum of numbers that are given by their logarithms; a probability, in spite of rounding."""
    return min(1.0, float(logs.logsumexp(0).exp()))
