"""Key-value caches: the keys and values of earlier positions, kept while a transformer decodes.

A cache is allocated for more positions than are filled; rows may be filled to different positions:

    position 5  | k0 k1 k2 k3 k4  .  .  . |     slot 0 holds the start vector, slot i + 1 token i
    position 3  | k0 k1 k2  .  .  .  .  . |     a query sees the slots up to its own only
                  <--- filled --->              attention reads the first `filled` slots of all rows

References:
    | Fast Transformer Decoding: One Write-Head is All You Need (Shazeer, 2019), section 2.4
    | https://arxiv.org/abs/1911.02150
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

from arlm.errors import UserError
from arlm.states import SHARED, State, check_room, grows, padded, rewound

KVCache = tuple[Tensor, Tensor]  # keys and values, each (B, heads, T, width / heads)
SLOTS = 32  # slots in a block; a copied cache has the blocks that are filled


class Slots(NamedTuple):
    """Where the keys and values of new positions go."""

    positions: Tensor  # (B, S) int64; those that a row does not take repeat its last one
    filled: int  # slots that attention reads
    targets: Tensor  # (N,) int64: where they go in a flattened cache
    taken: (
        Tensor | None
    )  # (N,) int64: which of the B * heads * S new ones are written; None for all

    def write(self, cache: KVCache, new: KVCache) -> KVCache:
        """Write new keys and values (B, heads, S, d) in place; returns those that attention reads."""
        for kept, added in zip(cache, new, strict=True):
            rows = added.reshape(-1, added.shape[-1])
            rows = rows if self.taken is None else rows[self.taken]
            kept.view(-1, kept.shape[-1]).index_copy_(0, self.targets, rows)
        keys, values = cache
        return keys[:, :, : self.filled], values[:, :, : self.filled]


@dataclass(frozen=True)
class CachedState(State):
    """The key-value cache of each block, and how far each row is filled."""

    caches: tuple[KVCache, ...] = field(metadata=grows(2))
    position: Tensor  # (B,) int64: slots that are filled in each row
    filled: int = field(metadata=SHARED)  # at least the largest position
    room: int = field(metadata=SHARED)  # slots that a row may fill
    # Keys and values (1, heads, P, d) of each block before those of all rows, if there are any.
    prefix: tuple[KVCache, ...] = field(default=(), kw_only=True, metadata=SHARED)

    def reserve(self, new: int, lengths: Tensor | None) -> tuple[Slots, Self]:
        """Make room for the next `new` positions of every row, or for `lengths` (B,) of them.

        Returns: the slots to write them to, and the state in which they are filled.
        """
        device = self.position.device
        offsets = torch.arange(new, device=device)
        if lengths is None:
            if self.filled + new > self.room:  # `filled` may be above the largest position
                check_room(self.position - 1, torch.full_like(self.position, new), self.room - 1)
            filled = min(self.filled + new, self.room)
            positions, position = self.position[:, None] + offsets, self.position + new
        else:
            check_room(self.position - 1, lengths, self.room - 1)
            position = self.position + lengths
            filled = int(position.max())
            positions = (self.position[:, None] + offsets).minimum(position[:, None] - 1)
        allocated = self.caches[0][0].shape[2]
        size = allocated if filled <= allocated else min(self.room, max(filled, 2 * allocated))
        caches = self._grown(size)
        rows, heads = caches[0][0].shape[:2]
        first = torch.arange(rows * heads, device=device).view(rows, heads, 1) * size
        index, taken = (first + positions[:, None]).flatten(), None
        if lengths is not None:
            inside = (offsets < lengths[:, None])[:, None].expand(-1, heads, -1)
            taken = inside.flatten().nonzero().flatten()
            index = index[taken]
        after = replace(self, caches=caches, position=position, filled=filled)
        return Slots(positions, filled, index, taken), after

    def rewind(self, counts: Tensor) -> Self:
        self._check_unused()
        position = 1 + rewound(self.position - 1, counts)
        self.used.append(True)
        return replace(self, position=position, filled=int(position.max()))

    def _assigned(self, rows: Tensor, other: Self) -> Self:
        most = int(other.position.max())
        filled = tuple((keys[:, :, :most], values[:, :, :most]) for keys, values in other.caches)
        large = replace(self, caches=self._grown(max(most, self.caches[0][0].shape[2])))
        result = super(CachedState, large)._assigned(rows, replace(other, caches=filled))
        return replace(result, filled=int(result.position.max()))

    def check_fits(self, rows: Tensor, other: Self) -> None:
        most = int(other.position.max())
        if most > self.room:
            raise UserError(
                f"state: a row of {most - 1} tokens does not fit the running batch, which has room for "
                f"{self.room - 1}; start it with longer rows"
            )
        super().check_fits(rows, other)

    def _check_fit(self, entry: Field, x: Tensor, rows: Tensor, y: Tensor) -> Tensor:
        # Caches grow up to the room.
        return x if entry.name == "caches" else super()._check_fit(entry, x, rows, y)

    def concatenated(self, others: Sequence[Self]) -> Self:
        joined, states = super().concatenated(others), (self, *others)
        filled, room = max(s.filled for s in states), max(s.room for s in states)
        return replace(joined, filled=filled, room=room)

    def _grown(self, size: int) -> tuple[KVCache, ...]:
        """The caches with room for `size` positions; the same tensors if they have it already."""
        return tuple(
            (padded(keys, 2, size, 0.0), padded(values, 2, size, 0.0))
            for keys, values in self.caches
        )

    def _copied(self, entry: Field, x: Tensor, rows: Tensor | slice) -> Tensor:
        """Copy filled slots only: beam search selects rows at every step."""
        if entry.name != "caches":
            return super()._copied(entry, x, rows)
        chosen = torch.arange(len(x), device=x.device)[rows]
        # Whole blocks: with few distinct sizes, the allocator can use freed memory again.
        size = -(-(self.filled + 1) // SLOTS) * SLOTS
        return x[:, :, :size].index_select(0, chosen)
