"""Independent tokens, counted with additive smoothing: p(w) = (c(w) + a) / (N + a V).

`Unigram` has one distribution for all tokens, `Histogram` one for each position of a row; a = 1 is add-one or
Laplace smoothing. They have no parameters: `count` adds rows, and `arlm.training.objectives.counting` calls it
in `fit`. Without counts they are uniform. Logits are log-probabilities in float64.

References:
    | An Empirical Study of Smoothing Techniques for Language Modeling (Chen, Goodman, 1999), section 2.1
    | https://doi.org/10.1006/csla.1999.0128
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec
from arlm.errors import require
from arlm.layers.recurrent import StatefulAutoregressor
from arlm.states import State, read_lengths


@dataclass(frozen=True)
class NoState(State):
    """The unigram remembers nothing of a row."""


class Unigram(StatefulAutoregressor):
    """The same distribution for every token. Rows may have any length.

    Args:
        spec: of the data; any shape, in raster order, without a context.
        smoothing: a, above 0.

    Shapes: tokens (B, T) -> logits (B, T, V).
    """

    counts: Tensor

    def __init__(self, spec: Spec, smoothing: float = 1.0) -> None:
        super().__init__(spec)
        self.smoothing = checked(smoothing)
        self.register_buffer("counts", torch.zeros(spec.vocab_size, dtype=torch.long))

    @torch.no_grad()
    def count(self, tokens: Tensor, scored: Tensor | None = None) -> None:
        """Add tokens (B, T) int64, where `scored` (B, T) bool if given."""
        counted = tokens.flatten() if scored is None else tokens[scored]
        self.counts = self.counts + counted.bincount(minlength=len(self.counts))

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return smoothed(self.counts, self.smoothing).expand(*tokens.shape, -1)

    def log_prob(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return smoothed(self.counts, self.smoothing)[tokens]

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, NoState]:
        return smoothed(self.counts, self.smoothing).expand(batch, -1), NoState(net=self.serial)

    def advance(
        self, tokens: Tensor, state: NoState, lengths: Tensor | None = None
    ) -> tuple[Tensor, NoState]:
        state.consume(self)
        read_lengths(tokens, lengths)
        return self(tokens), NoState(net=self.serial)


class Histogram(Autoregressor):
    """A distribution for each position of a row: for images, the histogram of each pixel's values.

    Args:
        spec: of the data; any shape, in raster order, without a context.
        smoothing: a, above 0.

    Shapes: tokens (B, T) -> logits (B, T, V), with T up to `spec.length`.
    """

    counts: Tensor

    def __init__(self, spec: Spec, smoothing: float = 1.0) -> None:
        super().__init__(spec)
        self.smoothing = checked(smoothing)
        self.register_buffer("counts", torch.zeros(spec.length, spec.vocab_size, dtype=torch.long))

    @torch.no_grad()
    def count(self, tokens: Tensor, scored: Tensor | None = None) -> None:
        """Add tokens (B, T) int64, where `scored` (B, T) bool if given."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        cells = positions * self.spec.vocab_size + tokens
        counted = cells.flatten() if scored is None else cells[scored]
        new = counted.bincount(minlength=self.counts.numel())
        self.counts = self.counts + new.view_as(self.counts)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        table = smoothed(self.counts[: tokens.shape[1]], self.smoothing)
        return table.expand(*tokens.shape, -1)


def smoothed(counts: Tensor, smoothing: float) -> Tensor:
    """Log-probabilities of counts (..., V) with additive smoothing, float64."""
    numbers = counts.double() + smoothing
    return (numbers / numbers.sum(-1, keepdim=True)).log()


def checked(smoothing: float) -> float:
    """The smoothing, if it is above 0 and finite."""
    mend = "choose a finite number above 0"
    require(0 < smoothing < math.inf, "model.net.smoothing", smoothing, mend)
    return smoothing
