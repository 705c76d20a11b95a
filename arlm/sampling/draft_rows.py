"""Rows of tokens that a draft may continue, with what draws their tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from arlm.core import Spec
from arlm.sampling.chain import Memories, apply_all, observe_all, refuse_masked
from arlm.sampling.finish import finished
from arlm.sampling.noise import Noise
from arlm.sampling.processors import History, LogitsProcessor, drawable
from arlm.sampling.steps import without_padding


@dataclass
class Rows:
    """Rows of tokens, and what draws the next ones: processors, their memories and the noise of the sample."""

    tokens: Tensor  # (B, T) int64, written in place
    lengths: Tensor  # (B,) int64, tokens of each row
    live: Tensor  # (B,) bool, rows that have not ended
    limits: Tensor  # (B,) int64, most tokens of each row
    prompt_lengths: Tensor  # (B,) int64
    forced: Tensor  # (B, T) int64, -1 where free
    seeds: Tensor  # (B,) int64
    noise: Noise
    processors: tuple[LogitsProcessor, ...]
    memories: Memories
    spec: Spec
    stop_tokens: Tensor  # (B, K) int64, -1 for none
    # (B, n), those of the noise for positions from `first` (B,) on: the network and its draft draw with the same.
    numbers: Tensor | None = None
    first: Tensor | None = None

    def copy(self) -> Rows:
        """Rows that can be continued without changing these."""
        return replace(self, tokens=self.tokens.clone())

    def columns(self, count: int) -> Tensor:
        """The next `count` positions of each row, (B, count), within the tokens."""
        offsets = torch.arange(count, device=self.lengths.device)
        return (self.lengths[:, None] + offsets).clamp(max=self.tokens.shape[1] - 1)

    def drawn(self, logits: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The next token of each row (B,) from logits (B, V), and the logits after each processor."""
        column, history = self.columns(1), None
        shaped, outputs = without_padding(logits, self.spec), []
        if self.processors or self.noise.reads_history:
            history = History(self.tokens, self.lengths, self.prompt_lengths, self.spec, self.seeds)
        if history is not None and self.processors:
            outputs = apply_all(self.processors, shaped, history, self.memories)
            shaped = outputs[-1]
        token = self.noise.draw(shaped, self._numbers(column).squeeze(1), history)
        # Where the processors leave none, it is any token; see `refuse_undrawable`.
        token = token.clamp(max=shaped.shape[1] - 1)
        given = self.forced.gather(1, column).squeeze(1)
        return torch.where(given >= 0, given, token), outputs

    def _numbers(self, columns: Tensor) -> Tensor:
        """What the noise needs for columns (B, m) of the next positions, (B, m)."""
        if self.numbers is None or self.first is None:
            return self.noise.numbers(self.seeds, columns)
        # Rows that are full stand behind their last column.
        offsets = (columns - self.first[:, None]).clamp(min=0)
        return self.numbers.gather(1, offsets)

    def refuse_undrawable(self, logits: Tensor, token: Tensor, outputs: list[Tensor]) -> None:
        """Raise a UserError if a row that has not ended has no token to draw; see `drawn`."""
        if outputs and not bool((possible := drawable(outputs[-1], token)).all()):
            free = self.forced.gather(1, self.columns(1)).squeeze(1) < 0
            rows = ~possible & self.live & free
            refuse_masked(self.processors, [logits, *outputs], rows, self.lengths)

    def drawn_together(self, logits: Tensor) -> Tensor | None:
        """The next n tokens of each row (B, n) from logits (B, n, V), if no token changes the draw of the next one."""
        if self.processors or self.noise.reads_history:
            return None
        columns = self.columns(logits.shape[1])
        shaped = without_padding(logits, self.spec).flatten(0, 1)
        numbers = self._numbers(columns).flatten()
        tokens = self.noise.draw(shaped, numbers, None).view_as(columns)
        given = self.forced.gather(1, columns)
        return torch.where(given >= 0, given, tokens)

    def append(self, token: Tensor, outputs: list[Tensor], rows: Tensor) -> None:
        """Take a token (B,) into the rows where `rows` (B,) is true; the memories of the others stay as they are.

        Args:
            token, outputs: as returned by `drawn`.
            rows: no ended ones.
        """
        column = self.columns(1)
        old = self.tokens.gather(1, column)
        self.tokens.scatter_(1, column, token[:, None].where(rows[:, None], old))
        if any(memory is not None for memory in self.memories):
            self.memories = observe_all(self.processors, token, outputs, self.memories, rows)
        self.lengths = self.lengths + rows.long()
        over = (self.lengths >= self.limits) | (token[:, None] == self.stop_tokens).any(1)
        if self.spec.eos_id is not None:
            over = over | (token == self.spec.eos_id)
        elif (done := finished(self.processors, self.memories)) is not None:
            over = over | done
        self.live = self.live & ~(over & rows)

    def draw(self, logits: Tensor) -> Tensor:
        """Draw the next token of each row (B,) from logits (B, V), and take it into the rows that have not ended."""
        token, outputs = self.drawn(logits)
        self.append(token, outputs, self.live)
        return token
