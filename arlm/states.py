"""States of incremental decoding: batch-first values that are passed in and returned, not kept in a network.

    start(...)                 ->  state, no token taken yet
    advance(tokens, state)     ->  logits, new state; the old state is consumed and raises when it is used again
    state[rows], state[:]          select and copy rows
    concatenate([a, b])            the rows of a, then the rows of b
    state.assign(rows, other)      write the rows of `other` over some rows, in place
    state.rewind(counts)           take back tokens, in networks with a key-value cache

The rows of a state may be at different positions (images excepted).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from arlm.errors import UserError

# Metadata of a dataclass field that is equal for all rows and is not indexed.
SHARED: dict[str, Any] = {"shared": True}


def grows(axis: int, fill: float | str = 0.0) -> dict[str, Any]:
    """Metadata of a field of tensors that grow along `axis`; `fill` is their padding, or the field that holds it."""
    return {"axis": axis, "fill": fill}


@dataclass(frozen=True)
class State:
    """What incremental decoding carries from token to token: tensors whose first axis is the batch.

    A field is a tensor with an entry for each row, a nested tuple of such tensors, or another State, unless its
    metadata is `SHARED`. `net` is the serial number of the network that made the state.
    """

    net: int = field(kw_only=True, metadata=SHARED)
    # A list, because an attribute that is set later would be lost under torch.compile.
    used: list[bool] = field(
        default_factory=list, init=False, repr=False, compare=False, metadata=SHARED
    )

    def consume(self, net: Any) -> None:
        """Mark the state as used, in the first line of every `advance`; refuse a used one, or another net's."""
        self._check_unused()
        if self.net != net.serial:
            raise UserError("state: another network made it; start one with this network")
        self.used.append(True)

    def _check_unused(self) -> None:
        if self.used:
            raise UserError(
                "state: it was consumed by an earlier call; copy it before that call, `state[:]`"
            )

    def __getitem__(self, rows: Tensor | slice) -> Self:
        """Select rows, in the order given, and copy them."""
        self._check_unused()
        return self._each(lambda entry, x: self._copied(entry, x, rows), lambda s: s[rows])

    def assign(self, rows: Tensor, other: Self) -> Self:
        """Write the n rows of `other` over the rows `rows` (n,), in place; this state is consumed.

        Raises a UserError, and changes nothing, if another network made `other`, or it does not fit.
        """
        check_joinable([self, other])
        self.check_fits(rows, other)
        self.used.append(True)
        return self._assigned(rows, other)

    def _assigned(self, rows: Tensor, other: Self) -> Self:
        """Write the rows; `assign` has checked that they fit."""

        def nested(state: State, new: State) -> State:
            state.used.append(True)
            return state._assigned(rows, new)

        return self._each(lambda entry, x, y: self._written(entry, x, rows, y), nested, other)

    def check_fits(self, rows: Tensor, other: Self) -> None:
        """Refuse rows of `other` that cannot be written over the rows `rows`."""

        def check(state: State, new: State) -> State:
            check_joinable([state, new])
            state.check_fits(rows, new)
            return state

        self._each(lambda entry, x, y: self._check_fit(entry, x, rows, y), check, other)

    def _check_fit(self, entry: Field, x: Tensor, rows: Tensor, y: Tensor) -> Tensor:
        chosen, axis = len(torch.arange(len(x), device=x.device)[rows]), entry.metadata.get("axis")
        if chosen != len(y):
            raise UserError(f"rows: {chosen} rows given for {len(y)} new ones; give as many")
        if axis is not None and y.shape[axis] > x.shape[axis]:
            raise UserError(
                f"{entry.name}: rows of {y.shape[axis]} do not fit the running batch, which has room for "
                f"{x.shape[axis]}; start it with longer rows"
            )
        return x

    def rewind(self, counts: Tensor) -> Self:
        """Take back the last `counts` (B,) tokens of each row, if the network can; this state is consumed."""
        kind = type(self).__name__
        raise UserError(f"state: {kind} cannot be rewound; advance again from a copy, `state[:]`")

    @property
    def one_position(self) -> bool:
        """Whether all rows have to be at the same position, as in images."""
        parts = (getattr(self, entry.name) for entry in fields(self))
        nested = [n for part in parts for n in (part if isinstance(part, tuple) else (part,))]
        return any(part.one_position for part in nested if isinstance(part, State))

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply `function` to every per-row tensor."""
        self._check_unused()
        return self._each(lambda entry, x: function(x), lambda s: s.map(function))

    def leaves(self) -> list[Tensor]:
        """All per-row tensors, in the order of the fields; of a consumed state too."""
        found: list[Tensor] = []
        replace(self).map(lambda x: found.append(x) or x)  # type: ignore[func-returns-value]
        return found

    def with_leaves(self, leaves: Sequence[Tensor]) -> Self:
        """A state of the same structure with the tensors that `leaves` returned."""
        remaining = iter(leaves)
        return self.map(lambda _: next(remaining))

    def concatenated(self, others: Sequence[Self]) -> Self:
        """The rows of this state, then those of the others; call `concatenate`."""
        return self._each(
            lambda entry, *parts: torch.cat(self._padded(entry, parts)),
            lambda *states: concatenate(states),
            *others,
        )

    def _each(
        self, tensors: Callable[..., Tensor], states: Callable[..., State], *others: Self
    ) -> Self:
        """Apply `tensors(field, x, ...)` to per-row tensors of this state and of others; `states` to States."""
        changed = {
            entry.name: _each_value(
                entry, tensors, states, *(getattr(s, entry.name) for s in (self, *others))
            )
            for entry in fields(self)
            if not entry.metadata.get("shared")
        }
        return replace(self, **changed)

    def _copied(self, entry: Field, x: Tensor, rows: Tensor | slice) -> Tensor:
        return x[rows].clone() if isinstance(rows, slice) else x[rows]

    def _written(self, entry: Field, x: Tensor, rows: Tensor, y: Tensor) -> Tensor:
        axis = entry.metadata.get("axis")
        x = x.clone() if x.requires_grad else x
        if axis is None:
            x[rows] = y
            return x
        size, room = y.shape[axis], x.shape[axis]
        x.narrow(axis, 0, size)[rows] = y
        if size < room:
            x.narrow(axis, size, room - size)[rows] = self._fill(entry)
        return x

    def _padded(self, entry: Field, parts: Sequence[Tensor]) -> list[Tensor]:
        axis = entry.metadata.get("axis")
        if axis is None:
            return list(parts)
        size = max(part.shape[axis] for part in parts)
        return [padded(part, axis, size, self._fill(entry)) for part in parts]

    def _fill(self, entry: Field) -> float:
        fill = entry.metadata["fill"]
        return getattr(self, fill) if isinstance(fill, str) else fill


# Not nested in `_each`, where a recursive function would be a reference cycle that keeps old states in memory.
def _each_value(entry: Field, tensors: Callable, states: Callable, *values: Any) -> Any:
    """`State._each` for the value of one field."""
    kinds = {type(v) if v is None or isinstance(v, tuple) else object for v in values}
    if len(kinds) > 1 or len({len(v) for v in values if isinstance(v, tuple)}) > 1:
        raise UserError(f"state: only some rows have {entry.name}; join rows of one kind")
    if isinstance(values[0], Tensor):
        return tensors(entry, *values)
    if isinstance(values[0], State):
        return states(*values)
    if isinstance(values[0], tuple):
        parts = zip(*values, strict=True)
        return tuple(_each_value(entry, tensors, states, *part) for part in parts)
    if values[0] is not None:
        raise TypeError(f"{entry.name} holds {type(values[0])}; use tensors, tuples and States")
    return None


def padded(x: Tensor, axis: int, size: int, fill: float) -> Tensor:
    """`x` with `size` entries along `axis`, the new ones equal to `fill`."""
    missing = size - x.shape[axis]
    if not missing:
        return x
    shape = [*x.shape[:axis], missing, *x.shape[axis + 1 :]]
    return torch.cat([x, x.new_full(shape, fill)], dim=axis)


def concatenate(states: Sequence[State]) -> Any:
    """The rows of several states of one network in one state; what is allocated differently is padded."""
    check_joinable(states)
    return states[0].concatenated(states[1:])


def check_joinable(states: Sequence[State]) -> None:
    """Refuse states of several networks, and consumed ones."""
    for state in states:
        state._check_unused()
        if type(state) is not type(states[0]) or state.net != states[0].net:
            raise UserError("state: these are of several networks or kinds; join states of one")


def read_lengths(tokens: Tensor, lengths: Tensor | None) -> Tensor:
    """How many of the tokens (B, S) each row takes, (B,) int64 from 0 to S: by default S."""
    rows, most = tokens.shape
    if lengths is None:
        return torch.full((rows,), most, device=tokens.device)
    lengths = lengths.to(tokens.device)
    wrong = ((lengths < 0) | (lengths > most)).nonzero().flatten().tolist()
    if lengths.shape != (rows,) or wrong:
        value = lengths[wrong[0]].item() if wrong else tuple(lengths.shape)
        raise UserError(
            f"lengths: {value}{f' in row {wrong[0]}' if wrong else ''} is out of range; "
            f"give {rows} numbers from 0 to {most}"
        )
    return lengths


@dataclass(frozen=True)
class Prefix(State):
    """The state of the default decoder, which recomputes the whole prefix at every step."""

    tokens: Tensor = field(metadata=grows(1))  # (B, T) int64, as many as a row may have
    position: Tensor  # (B,) int64, tokens taken
    context: Tensor | None = field(metadata=grows(1, fill="pad_id"))
    pad_id: int | None = field(metadata=SHARED)

    def append(self, tokens: Tensor, lengths: Tensor) -> Prefix:
        """The state with the first `lengths` (B,) of new tokens (B, S) in each row."""
        check_room(self.position, lengths, self.tokens.shape[1] - 1)
        taken = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        rows, columns = taken.nonzero(as_tuple=True)
        self.tokens[rows, self.position[rows] + columns] = tokens[rows, columns]
        return replace(self, position=self.position + lengths)

    def rewind(self, counts: Tensor) -> Self:
        position = rewound(self.position, counts)
        self._check_unused()
        self.used.append(True)
        return replace(self, position=position)

    def check_fits(self, rows: Tensor, other: Self) -> None:
        check_room(other.position * 0, other.position, self.tokens.shape[1] - 1)
        super().check_fits(rows, other._trimmed())

    def _assigned(self, rows: Tensor, other: Self) -> Self:
        # The context may be the caller's.
        own = replace(self, context=None if self.context is None else self.context.clone())
        return super(Prefix, own)._assigned(rows, other._trimmed())

    def _trimmed(self) -> Self:
        return replace(self, tokens=self.tokens[:, : int(self.position.max())])


def check_room(position: Tensor, lengths: Tensor, room: int) -> None:
    """Refuse tokens beyond the room of a row; `position` and `lengths` are (B,), `room` counts tokens."""
    over = (position + lengths > room).nonzero().flatten().tolist()
    if over:
        row = over[0]
        raise UserError(
            f"state: row {row} holds {int(position[row])} tokens and cannot take {int(lengths[row])} more, "
            f"because `start` was given rows of {room + 1}, and nothing follows the last; start longer rows"
        )


def rewound(position: Tensor, counts: Tensor) -> Tensor:
    """Positions (B,) before the last `counts` (B,) tokens; raises a UserError if a row has fewer."""
    counts = counts.to(position.device)
    if counts.shape != position.shape or bool(((counts < 0) | (counts > position)).any()):
        raise UserError(
            f"counts: rows of {position.tolist()} tokens cannot be rewound by {counts.tolist()}; "
            "give a number for each row, at most its tokens"
        )
    return position - counts


class ChunkState(NamedTuple):
    """The state between two chunks: the last token of each row, and the decoding state before that token."""

    last: Tensor  # (B, 1) int64
    state: State
