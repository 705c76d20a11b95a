"""Splits of a data set: `dataset[rows]` is a whole batch of tokens.

A batch is a pure function of (seed, epoch, rows), so a run that is killed and resumed in the middle of an
epoch gets the same batches as an uninterrupted one. Long texts are in `windows` and `continuous`, sentence
pairs in `pairs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from arlm.core import Batch, Spec
from arlm.domains import Domain
from arlm.errors import UserError


class Rows(NamedTuple):
    """The rows of a batch, and the pass over the data that it belongs to."""

    epoch: int
    chosen: Tensor  # (B,) int64


class TokenDataset(Dataset, ABC):
    """One split. `dataset[rows]` is a whole batch."""

    streams: int | None = None  # parallel streams of continuous batching; None for independent rows

    @abstractmethod
    def __len__(self) -> int:
        """Rows in one epoch."""

    @abstractmethod
    def __getitem__(self, rows: Rows) -> Batch: ...

    def positions(self, rows: Rows) -> Tensor:
        """Position of each token in the split, (B, T) int64, to sort scores into the data's order."""
        length = self[rows].tokens.shape[1]
        return rows.chosen[:, None] * length + torch.arange(length)


class FixedRows(TokenDataset):
    """Rows that are the same in every epoch.

    Args:
        tokens: (N, T) integers; one outside the vocabulary raises a UserError.
        domain: gives the units of the tokens.
        context: gives the context of a batch, (B, S) int64, such as `arlm.data.labels.Labels`; None for none.
    """

    def __init__(
        self, tokens: Tensor, domain: Domain, context: Callable[[Rows], Tensor] | None = None
    ) -> None:
        check_tokens(tokens, domain.vocab_size)
        self.tokens, self.domain, self.context = tokens, domain, context

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Rows) -> Batch:
        context = None if self.context is None else self.context(rows)
        return whole_rows(self.tokens[rows.chosen], self.domain, context)


def whole_rows(tokens: Tensor, domain: Domain, context: Tensor | None = None) -> Batch:
    """A batch of integers (B, T), all of them scored."""
    tokens = tokens.long()
    scored = torch.ones(tokens.shape, dtype=torch.bool)
    return Batch(tokens, scored, domain.units(tokens), context)


def check_tokens(tokens: Tensor, vocab_size: int, what: str = "the token") -> None:
    """Raise a UserError for a token (N, T) outside the vocabulary, which names its row.

    Tokens on an accelerator are not tested: that would wait for it.
    """
    if tokens.device.type != "cpu" or not tokens.numel() or tokens.is_floating_point():
        return
    least, largest = (int(value) for value in tokens.aminmax())
    if least < 0 or largest >= vocab_size:
        wrong = ((tokens < 0) | (tokens >= vocab_size)).nonzero()[0].tolist()
        raise UserError(
            f"data: row {wrong[0]} holds {what} {int(tokens[tuple(wrong)])} at position {wrong[-1]}; the vocabulary "
            f"has {vocab_size}, 0 to {vocab_size - 1}"
        )


def plain_batch(found: Tensor | Sequence[Any], spec: Spec, domain: Domain | None = None) -> Batch:
    """The batch that plain tensors mean, such as those of a `DataLoader` over a `TensorDataset`.

    What follows the first end token of a row is not scored, and padding is not. Without a domain a token counts
    as one unit.

    Args:
        found: tokens (B, T) of any integer type, or a list or tuple of these and the context (B, S) or (B,).
        spec: of the data.
        domain: gives the units of the tokens.

    Raises:
        UserError: it is none of these, or holds a token outside the vocabulary.
    """
    parts = [found] if isinstance(found, Tensor) else found
    kinds = all(isinstance(part, Tensor) for part in parts)
    if not kinds or len(parts) not in (1, 2) or parts[0].ndim != 2:
        shapes = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in parts]
        raise UserError(
            f"data: a batch is {shapes}; yield tokens (B, T), tokens and a context (B, S), or an arlm.Batch"
        )
    for part in parts:
        if part.is_floating_point() or part.is_complex():
            raise UserError(
                f"data: a batch holds {part.dtype}; yield tokens as integers, int64 or uint8"
            )
    tokens = parts[0].long()
    check_tokens(tokens, spec.vocab_size)
    scored = torch.ones_like(tokens, dtype=torch.bool)
    if spec.eos_id is not None:
        ends = tokens == spec.eos_id
        scored &= (ends.cumsum(1) - ends.long()) == 0
    if spec.pad_id is not None and spec.pad_id != spec.eos_id:
        scored &= tokens != spec.pad_id
    units = torch.ones_like(tokens, dtype=torch.float) if domain is None else domain.units(tokens)
    context = None if len(parts) == 1 else parts[1].long().view(len(tokens), -1)
    if context is not None and spec.context is not None:
        check_tokens(context, spec.context.vocab_size, "the context's token")
    return Batch(tokens, scored, units, context)


def generator(*numbers: int) -> torch.Generator:
    """A random generator whose seed combines small numbers (seed, epoch, ...)."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % 2**63
    return torch.Generator().manual_seed(seed)
