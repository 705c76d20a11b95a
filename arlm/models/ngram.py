"""Interpolated Kneser-Ney: an n-gram model whose counts are buffers, fitted by one pass over the data.

References:
    | Improved backing-off for m-gram language modeling (Kneser, Ney, 1995)
    | https://doi.org/10.1109/ICASSP.1995.479394
    | An Empirical Study of Smoothing Techniques for Language Modeling (Chen, Goodman, 1999)
    | https://doi.org/10.1006/csla.1999.0128
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from arlm.core import Scores, Spec, device_of
from arlm.errors import UserError
from arlm.layers.ngram_table import NGramTable
from arlm.layers.recurrent import StatefulAutoregressor
from arlm.states import ChunkState, State, read_lengths

ABSENT = -1  # before the first token of a row


@dataclass(frozen=True)
class Recent(State):
    """The last n - 1 tokens of each row."""

    tokens: Tensor  # (B, n - 1) int64, ABSENT where the row has fewer


class KneserNeyNGram(StatefulAutoregressor):
    """Interpolated Kneser-Ney n-gram; order 1 is the unigram, interpolated with the uniform distribution.

    p_k(w | u) = (max(c(u w) - D_k, 0) + D_k N(u) p_{k-1}(w | u')) / c(u), where c counts occurrences in
    the highest order and distinct left neighbours below, N(u) is the number of distinct w after u, u' is
    u without its first token, and D_k = n1 / (n1 + 2 n2) from the counts of counts (1/2 if either is zero).
    For an unseen u, p_k(w | u) = p_{k-1}(w | u'); at the start of a row u holds only the tokens that there
    are. Without counts the distribution is uniform.

    It has no parameters: `count` adds rows, and `arlm.training.objectives.counting` calls it in `fit`. Logits
    are log-probabilities in float64, whatever the precision of the run. Rows may have any length.

    Args:
        spec: of the data; any shape, in raster order, without a context.
        order: n, tokens in an n-gram; V ** n has to fit into 63 bits.

    Shapes: tokens (B, T) -> logits (B, T, V).

    Raises:
        UserError: the order is below 1, or too large for the vocabulary.
    """

    def __init__(self, spec: Spec, order: int = 5) -> None:
        super().__init__(spec)
        most = largest_order(spec.vocab_size)
        if not 1 <= order <= most:
            raise UserError(
                f"model.net.order: {order} is out of range; choose 1 to {most}, because codes of n-grams "
                f"of {spec.vocab_size} tokens have to fit into 63 bits"
            )
        self.order = order
        # Distinct left neighbours of k-grams follow from the (k + 1)-grams, so order n > 1 needs no unigrams.
        self._stored = range(min(2, order), order + 1)
        for k in self._stored:
            self.register_buffer(f"grams_{k}", torch.zeros(0, dtype=torch.long))
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(0, dtype=torch.long))  # of the n-grams
        # Derived from the buffers when they are first read.
        self._tables: list[NGramTable] | None = None

    @torch.no_grad()
    def count(self, tokens: Tensor, scored: Tensor | None = None) -> None:
        """Add the n-grams of rows.

        Args:
            tokens: (B, T) int64.
            scored: (B, T) bool; n-grams that end at other tokens are not counted. They are padding, or rows
                overlap and another row counts them. None counts all.
        """
        size, line = self.spec.vocab_size, self._line(tokens)
        for k, history in enumerate(self._histories(line), start=1):
            if k not in self._stored:
                continue
            before = history[:, :-1]
            counted = before >= 0 if scored is None else (before >= 0) & scored
            known, new = getattr(self, f"grams_{k}"), (before * size + tokens)[counted]
            grams, index = torch.cat([known, new]).unique(return_inverse=True)
            setattr(self, f"grams_{k}", grams)
            if k == self.order:
                counts = torch.cat([self.counts, torch.ones_like(new)])
                self.counts = torch.zeros_like(grams).index_add_(0, index, counts)
        self._tables = None

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self._distributions(self._line(tokens))[:, :-1]

    def log_prob(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self._observed(self._line(tokens))

    def score_chunk(
        self,
        tokens: Tensor,
        chunk_state: ChunkState | None = None,
        context: Tensor | None = None,
    ) -> tuple[Scores, ChunkState]:
        if chunk_state is None:
            line = self._line(tokens)
        else:
            chunk_state.state.consume(self)
            before = torch.cat([chunk_state.state.tokens, chunk_state.last], dim=1)  # type: ignore[attr-defined]
            line = torch.cat([before[:, 1:], tokens], dim=1)
        recent = Recent(line[:, tokens.shape[1] - 1 : -1], net=self.serial)
        return Scores(self._observed(line)), ChunkState(tokens[:, -1:], recent)

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, Recent]:
        empty = torch.zeros(batch, 0, dtype=torch.long, device=device_of(self))
        line = self._line(empty)
        return self._distributions(line)[:, 0], Recent(line, net=self.serial)

    def advance(
        self, tokens: Tensor, state: Recent, lengths: Tensor | None = None
    ) -> tuple[Tensor, Recent]:
        state.consume(self)
        lengths = read_lengths(tokens, lengths)[:, None]
        beyond = torch.arange(tokens.shape[1], device=tokens.device) >= lengths
        line = torch.cat([state.tokens, tokens.masked_fill(beyond, ABSENT)], dim=1)
        last = lengths + torch.arange(self.order - 1, device=tokens.device)
        return self._distributions(line)[:, 1:], Recent(line.gather(1, last), net=self.serial)

    def _line(self, tokens: Tensor) -> Tensor:
        """Rows (B, T) from their start: n - 1 times ABSENT, then the tokens."""
        return torch.nn.functional.pad(tokens, (self.order - 1, 0), value=ABSENT)

    def _histories(self, line: Tensor) -> Iterator[Tensor]:
        """Codes of the 0, 1, ..., n - 1 tokens before each column of a line from the n-th on.

        Args:
            line: (B, n - 1 + S) int64.

        Returns: n times (B, S + 1), ABSENT where the row has fewer tokens; the last is after the line's end.
        """
        columns = line.shape[1] - self.order + 2
        code = line.new_zeros(len(line), columns)
        yield code
        for k in range(1, self.order):
            first = self.order - 1 - k
            older = line[:, first : first + columns]
            there = (older >= 0) & (code >= 0)
            code = (older * self.spec.vocab_size ** (k - 1) + code).where(there, ABSENT)
            yield code

    def _observed(self, line: Tensor) -> Tensor:
        """Log-probabilities (B, S) of the tokens in a line (B, n - 1 + S)."""
        tokens = line[:, self.order - 1 :]
        p = torch.full_like(tokens, 1 / self.spec.vocab_size, dtype=torch.float64)
        for level, history in zip(self._levels(), self._histories(line), strict=True):
            p = level.interpolate(p, history[:, :-1], tokens)
        return p.log()

    def _distributions(self, line: Tensor) -> Tensor:
        """Log-probabilities (B, S + 1, V) of all tokens after each history in a line (B, n - 1 + S)."""
        size, histories = self.spec.vocab_size, self._histories(line)
        # All histories share the lowest level, of no tokens.
        lowest, *levels = self._levels()
        empty = next(histories)
        p = torch.full((1, size), 1 / size, dtype=torch.float64, device=line.device)
        p = lowest.interpolate_all(p, empty.new_zeros(1)).repeat(empty.numel(), 1)
        for level, history in zip(levels, histories, strict=True):
            p = level.interpolate_all(p, history.flatten())
        return p.log().view(*empty.shape, size)

    def _levels(self) -> list[NGramTable]:
        """The tables of k = 1, ..., n."""
        if self._tables is None:
            size, top = self.spec.vocab_size, (getattr(self, f"grams_{self.order}"), self.counts)
            lower = [
                (getattr(self, f"grams_{k + 1}") % size**k).unique(return_counts=True)
                for k in range(1, self.order)
            ]
            self._tables = [NGramTable.of(grams, n, size) for grams, n in [*lower, top]]
        return self._tables

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._tables = None  # they are on the device of the buffers
        return super()._apply(fn, recurse)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *others: Any, **named: Any
    ) -> None:
        # The number of n-grams is known from the counts only, so buffers take the sizes of the file.
        for name, own in self._buffers.items():
            given = state_dict.get(prefix + name)
            if own is not None and isinstance(given, Tensor):
                setattr(self, name, own.new_zeros(given.shape))
        self._tables = None
        super()._load_from_state_dict(state_dict, prefix, *others, **named)
        for name in self._unsorted():
            others[-1].append(f"{prefix}{name} is no table of n-grams")

    def _unsorted(self) -> Iterator[str]:
        """Names of buffers that no counting can have made."""
        for k in self._stored:
            grams, end = getattr(self, f"grams_{k}"), self.spec.vocab_size**k
            inside = bool(((grams >= 0) & (grams < end)).all())
            if grams.ndim != 1 or not inside or bool((grams.diff() <= 0).any()):
                yield f"grams_{k}"
        top = getattr(self, f"grams_{self.order}")
        if self.counts.shape != top.shape or bool((self.counts < 1).any()):
            yield "counts"


def largest_order(vocab_size: int) -> int:
    """The largest n such that vocab_size ** n fits into 63 bits."""
    return max(n for n in range(1, 63) if vocab_size**n < 2**63)
