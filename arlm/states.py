"""States of incremental decoding: batch-first values that are passed in and returned, not kept in a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """What incremental decoding carries from token to token: tensors whose first axis is the batch.

    `state[rows]` selects or reorders rows, as beam search does. Fields named in `shared` do not have one entry
    for each row (masked weights, for example), and are not indexed.
    """

    shared: ClassVar[frozenset[str]] = frozenset()

    def __getitem__(self, rows: Tensor | slice) -> State:
        return self.map(lambda part: part[rows])

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """Apply `function` to every per-row tensor."""
        names = [f.name for f in fields(self) if f.name not in self.shared]
        return replace(self, **{name: map_tensors(function, getattr(self, name)) for name in names})

    def leaves(self) -> list[Tensor]:
        """All per-row tensors, in the order of the fields."""
        found: list[Tensor] = []
        self.map(lambda part: found.append(part) or part)  # type: ignore[func-returns-value]
        return found

    def filled(self, leaves: Iterator[Tensor]) -> State:
        """A state of the same structure with the per-row tensors from `leaves`."""
        return self.map(lambda _: next(leaves))

    def join(self, below: State) -> State:
        """The rows of this state, followed by the rows of `below`."""
        others = iter(below.leaves())
        return self.map(lambda part: torch.cat([part, next(others)]))


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply `function` to every tensor in nested tuples; other values stay."""
    if isinstance(value, Tensor):
        return function(value)
    return tuple(map_tensors(function, v) for v in value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Prefix(State):
    """The state of the default decoder, which recomputes the whole prefix at every step."""

    tokens: Tensor  # (B, t)
    context: Tensor | None


class ChunkState(NamedTuple):
    """The state between two chunks: the last token of each row, and the decoding state before that token."""

    last: Tensor  # (B, 1) int64
    state: State
