"""Text while it is drawn, piece by piece: a piece is shown when nothing that follows can change it; see `stops`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.inference.stops import RowText, check_stops
from arlm.sampling.details import Block
from arlm.sampling.finish import Finish, cut, finish_reasons
from arlm.sampling.steps import Steps, filler


class Piece(NamedTuple):
    """Text that follows what was shown of a row."""

    row: int  # the row's number
    text: str
    ended: bool  # whether it is the row's last piece
    finish: str | None = None  # why the row ended: "end", "length", "stop" or "constraint"


def stream(
    steps: Steps,
    decode: Callable[[Tensor], str],
    stop: Sequence[str] = (),
    observe: Callable[[Block], object] | None = None,
) -> Iterator[Piece]:
    """Text of each row as it is drawn, its prompt first; the joined pieces are what `decode` returns.

    A row that a stop string ends has its tokens up to the one that completes the string, whatever the size of blocks.

    Args:
        steps: the rows; a block of 1 shows each token at once.
        decode: tokens (T,) -> str; see `RowText`.
        stop: strings that end a row where they first occur after its prompt; they are not shown.
        observe: called with each block.

    Raises:
        UserError: a stop string is empty.
    """
    check_stops(stop)
    rows: dict[int, RowText | None] = {}  # None for one that has ended

    def pieces() -> list[Piece]:
        state, found = steps.state, []
        reasons, lengths = finish_reasons(state, steps.net.spec), state.lengths.tolist()
        stopped = torch.full_like(state.lengths, -1)
        for slot, number in enumerate(state.rows.tolist()):
            tokens = state.tokens[slot].cpu()
            if number not in rows:
                rows[number] = RowText(decode, tokens[: int(state.prompt_lengths[slot])], stop)
            text = rows[number]
            if text is None:
                continue
            reason = reasons[slot]
            new, count = text.take(tokens[: lengths[slot]], reason is not None)
            if count is not None:
                stopped[slot], reason = count, Finish.STOP.label
            if new or reason:
                found.append(Piece(number, new, reason is not None, reason))
            if reason:
                rows[number] = None
        if bool((stopped >= 0).any()):
            steps.state = cut(state, stopped, Finish.STOP, filler(steps.net.spec))
        return found

    yield from pieces()
    for block in steps:
        if observe:
            observe(block)
        yield from pieces()
