"""Counts of a token between its two neighbours: the baseline of masked networks.

References:
    | An Empirical Study of Smoothing Techniques for Language Modeling (Chen, Goodman, 1999), interpolated absolute
    | discounting | https://doi.org/10.1006/csla.1999.0128
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.core import Spec
from arlm.errors import UserError, require
from arlm.layers.context_reader import ContextOnly, check_context
from arlm.layers.ngram_table import NGramTable

ABSENT = -1  # a neighbour that is masked, or beyond the end
MOST = 2**22  # probabilities that are computed at once


class TwoSidedNGram(ContextOnly):
    """p(w | left, right), interpolated with p(w | left) p(w | right) / p(w), and that with the unigram.

        p_3(w | l, r) = (max(c(l w r) - D, 0) + D N(l, r) q(w)) / c(l, r),   q(w) ~ p_2(w | l) p_2(w | r) / p_1(w)

    c counts occurrences, N(l, r) is the number of distinct w between l and r, and D = n1 / (n1 + 2 n2) of each table; q
    takes l and r as independent given w. A neighbour that is masked takes no part. A token v in the text at the place
    of w itself is evidence: with the share `kept` it is w, otherwise any token.

    It has no parameters: `count` adds rows of text, and `arlm.training.objectives.counting` calls it in `fit`. Logits
    are log-probabilities in float64. Without counts the distribution is uniform.

    Args:
        spec: of the data: rows, and their masked form as context.
        order: 3 for both neighbours, 1 for the unigram, which reads neither.
        kept: share of the scored tokens that are not masked that are the text's own; with masked = 0.8 and
            random = 0.1 of the data it is a half.

    Shapes: tokens (B, T), which are not read, and context (B, S) -> logits (B, T, V).

    Raises:
        UserError: the order is neither 1 nor 3, or the vocabulary is too large for numbers of 63 bits.
    """

    def __init__(self, spec: Spec, order: int = 3, kept: float = 0.5) -> None:
        super().__init__(spec)
        self.pad_id = check_context(self, spec)
        require(order in (1, 3), "model.net.order", order, "choose 1 or 3")
        fits = spec.vocab_size**3 < 2**63
        require(fits, "model.net.order", order, "choose a smaller vocabulary, up to 2 million")
        require(0 <= kept <= 1, "model.net.kept", kept, "choose 0 to 1")
        self.order, self.kept = order, kept
        self.grams: Tensor
        self.counts: Tensor
        # Codes (l V + r) V + w, sorted, and how often each occurs.
        self.register_buffer("grams", torch.zeros(0, dtype=torch.long))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.long))
        self._tables: list[NGramTable] | None = None

    @torch.no_grad()
    def count(self, tokens: Tensor, scored: Tensor | None = None) -> None:
        """Add the trigrams of rows of text.

        Args:
            tokens: (B, T) int64.
            scored: (B, T) bool; trigrams that end at other tokens are not counted. None counts all.
        """
        size = self.spec.vocab_size
        left, middle, right = tokens[:, :-2], tokens[:, 1:-1], tokens[:, 2:]
        codes = (left * size + right) * size + middle
        new = codes.flatten() if scored is None else codes[scored[:, 2:]]
        grams, index = torch.cat([self.grams, new]).unique(return_inverse=True)
        counts = torch.cat([self.counts, torch.ones_like(new)])
        self.counts = torch.zeros_like(grams).index_add_(0, index, counts)
        self.grams, self._tables = grams, None

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            raise UserError("context: the counts are of a masked text; give one for each row")
        length, size = tokens.shape[1], self.spec.vocab_size
        line = F.pad(context, (1, length + 1), value=self.pad_id)[:, : length + 2]
        line = line.where(line < size, ABSENT)
        left, own, right = (line[:, i : i + length].flatten() for i in range(3))
        parts = (part.split(max(1, MOST // size)) for part in (left, own, right))
        found = [self._distributions(*part) for part in zip(*parts, strict=True)]
        return torch.cat(found).log().view(*tokens.shape, size)

    def _distributions(self, left: Tensor, own: Tensor, right: Tensor) -> Tensor:
        """Probabilities (N, V) between neighbours (N,), given what the text has in the place, (N,)."""
        size, (unigram, after, before, between) = self.spec.vocab_size, self._levels()
        one = torch.full((1, size), 1 / size, dtype=torch.float64, device=left.device)
        one = unigram.interpolate_all(one, left.new_zeros(1))
        p = one.repeat(len(left), 1)
        if self.order == 3:
            p = after.interpolate_all(p, left)
            p *= before.interpolate_all(one.repeat(len(left), 1), right) / one
            p /= p.sum(1, keepdim=True)
            both = torch.where((left >= 0) & (right >= 0), left * size + right, ABSENT)
            p = between.interpolate_all(p, both)
        rows = (own >= 0).nonzero().flatten()
        evidence = torch.full((len(rows), size), (1 - self.kept) / size, dtype=p.dtype)
        evidence = evidence.to(p.device)
        evidence[torch.arange(len(rows)), own[rows]] += self.kept
        if self.kept < 1:  # otherwise a token that is not masked would be certain
            p[rows] *= evidence
        return p / p.sum(1, keepdim=True)

    def _levels(self) -> list[NGramTable]:
        """The tables of w; of w after l; of w before r; and of w between l and r."""
        if self._tables is None:
            size, grams, counts = self.spec.vocab_size, self.grams, self.counts
            middle, right, left = grams % size, grams // size % size, grams // size**2
            self._tables = []
            for codes in (middle, left * size + middle, right * size + middle):
                kinds, index = codes.unique(return_inverse=True)
                totals = torch.zeros_like(kinds).index_add_(0, index, counts)
                self._tables.append(NGramTable.of(kinds, totals, size))
            self._tables.append(NGramTable.of(grams, counts, size))
        return self._tables

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._tables = None  # they are on the device of the buffers
        return super()._apply(fn, recurse)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *others: Any, **named: Any
    ) -> None:
        # The number of trigrams is known from the counts only, so buffers take the sizes of the file.
        for name, own in self._buffers.items():
            given = state_dict.get(prefix + name)
            if own is not None and isinstance(given, Tensor):
                setattr(self, name, own.new_zeros(given.shape))
        self._tables = None
        super()._load_from_state_dict(state_dict, prefix, *others, **named)
        grams, counts, end = self.grams, self.counts, self.spec.vocab_size**3
        inside = grams.ndim == 1 and bool(((grams >= 0) & (grams < end)).all())
        if not inside or bool((grams.diff() <= 0).any()):
            others[-1].append(f"{prefix}grams is no table of trigrams")
        elif counts.shape != grams.shape or bool((counts < 1).any()):
            others[-1].append(f"{prefix}counts is no table of counts")
