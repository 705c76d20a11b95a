"""Objects of any kind as part of a processor's memory, one for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from arlm.errors import UserError
from arlm.states import SHARED, State


@dataclass(frozen=True)
class RowObjects(State):
    """One object for each row, selected, joined and replaced with the row.

    Rows may share an object, so `observe` never changes one: it puts a changed copy in its place.
    """

    objects: tuple[Any, ...] = field(metadata=SHARED)
    net: int = field(default=0, kw_only=True, metadata=SHARED)  # of no network

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, rows: Tensor | slice) -> Self:
        chosen = torch.arange(len(self))[rows.cpu() if isinstance(rows, Tensor) else rows]
        return replace(self, objects=tuple(self.objects[i] for i in chosen.tolist()))

    def where(self, rows: Tensor, other: RowObjects) -> Self:
        """The objects of this state in the rows (B,) where it is true, else those of `other`."""
        chosen = zip(rows.tolist(), self.objects, other.objects, strict=True)
        return replace(self, objects=tuple(a if own else b for own, a, b in chosen))

    def concatenated(self, others: Sequence[Self]) -> Self:
        return replace(self, objects=sum((other.objects for other in others), self.objects))

    def check_fits(self, rows: Tensor, other: Self) -> None:
        chosen = len(torch.arange(len(self))[rows.cpu()])
        if chosen != len(other):
            raise UserError(f"rows: {chosen} rows given for {len(other)} new ones; give as many")

    def _assigned(self, rows: Tensor, other: Self) -> Self:
        objects = list(self.objects)
        places = torch.arange(len(self))[rows.cpu()].tolist()
        for place, new in zip(places, other.objects, strict=True):
            objects[place] = new
        return replace(self, objects=tuple(objects))
