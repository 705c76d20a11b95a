"""Splits of a data set as batches of tokens: rows of one size, or windows over a long text.

A batch is a pure function of (seed, epoch, rows), so a run that is killed and resumed in the middle of
an epoch sees the very batches that it would have seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from arlm.core import Batch
from arlm.domains import Domain
from arlm.errors import UserError


class Rows(NamedTuple):
    """Which rows make a batch, and in which pass over the data."""

    epoch: int
    chosen: Tensor  # (B,) int64


class TokenDataset(Dataset, ABC):
    """One split. `dataset[rows]` is a whole batch."""

    @abstractmethod
    def __len__(self) -> int:
        """Rows in one epoch."""

    @abstractmethod
    def __getitem__(self, rows: Rows) -> Batch: ...


class FixedRows(TokenDataset):
    """Rows that are the same in every epoch.

    Args:
        tokens: (N, T) integers.
        domain: says what the tokens are worth.
        labels: (N,) integers, the class of each row, if it is to be the context.
    """

    def __init__(self, tokens: Tensor, domain: Domain, labels: Tensor | None = None) -> None:
        self.tokens, self.domain, self.labels = tokens, domain, labels

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Rows) -> Batch:
        return whole_rows(self.tokens[rows.chosen], self.domain, chosen(self.labels, rows))


def chosen(labels: Tensor | None, rows: Rows) -> Tensor | None:
    """Labels of a batch as its context, (B, 1) int64."""
    return None if labels is None else labels[rows.chosen, None].long()


def whole_rows(tokens: Tensor, domain: Domain, context: Tensor | None = None) -> Batch:
    """A batch of integers (B, T), every one of them scored."""
    tokens = tokens.long()
    scored = torch.ones(tokens.shape, dtype=torch.bool)
    return Batch(tokens, scored, domain.units(tokens), context)


class TextWindows(TokenDataset):
    """Windows of `length` tokens over a text.

    In training, an epoch cuts the text into disjoint windows from a random offset. In evaluation,
    windows advance by `stride` and score only what no window before has scored, so that every token
    is scored exactly once, with at least `length - stride` tokens of context (but for the first window).

    Args:
        tokens: (N,) integers.
        domain: says what the tokens are worth.
        length: of a window.
        stride: None in training; 1 to `length` in evaluation.
        seed: of the offsets.
    """

    def __init__(
        self, tokens: Tensor, domain: Domain, length: int, stride: int | None = None, seed: int = 0
    ) -> None:
        if len(tokens) < max(length, 2):
            raise UserError(
                f"data.length: a split of the text has {len(tokens)} tokens, fewer than a window "
                f"of {length}; give more text or a smaller length"
            )
        self.tokens, self.domain, self.length = tokens, domain, length
        self.stride, self.seed = stride, seed
        if stride is not None:
            starts = torch.arange(0, len(tokens) - length + stride, stride)
            self.starts = starts.clamp(max=len(tokens) - length)

    def __len__(self) -> int:
        if self.stride is None:
            return max(1, len(self.tokens) // self.length - 1)
        return len(self.starts)

    def __getitem__(self, rows: Rows) -> Batch:
        within = torch.arange(self.length)
        if self.stride is None:
            starts = self._offset(rows.epoch) + rows.chosen * self.length
            return whole_rows(self.tokens[starts[:, None] + within], self.domain)
        where = self.starts[rows.chosen][:, None] + within
        before = self.starts[(rows.chosen - 1).clamp(min=0)] + self.length
        scored = where >= torch.where(rows.chosen == 0, 0, before)[:, None]
        return whole_rows(self.tokens[where], self.domain)._replace(scored=scored)

    def _offset(self, epoch: int) -> int:
        spare = len(self.tokens) - len(self) * self.length
        return int(torch.randint(spare + 1, (), generator=generator(self.seed, epoch)))


def generator(*numbers: int) -> torch.Generator:
    """Randomness that is a pure function of some small numbers (seed, epoch, ...)."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % 2**63
    return torch.Generator().manual_seed(seed)
