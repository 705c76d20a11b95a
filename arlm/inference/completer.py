"""Text while it is drawn: pieces that are final, and stop strings.

A piece is shown when nothing that follows can change it:

    tokens (bytes)   e2 82        ac          the first two bytes of a character are held back
    shown                         "€"
    text drawn       "the end."   " Pa"       with the stop string "\n\n", a "\n" at the end would be held back
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.steps import Steps

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Piece(NamedTuple):
    """Text that follows what was shown of a row."""

    row: int  # the row's number
    text: str
    ended: bool  # whether it is the row's last piece


class _Row:
    """The text of one row, of which a part was shown."""

    def __init__(self, prompt: str, stop: Sequence[str]) -> None:
        self.shown, self.search_from, self.stop = "", len(prompt), stop

    def take(self, text: str, ended: bool) -> Piece | None:
        """What can be shown of the row's text; None if there is nothing new. `row` is -1; the caller sets it."""
        found = [(text.find(one, self.search_from), len(one)) for one in self.stop]
        # The one that ends first, so that the result does not depend on the size of the pieces.
        ends = [(place + size, place) for place, size in found if place >= 0]
        stopped = bool(ends)
        if ends:
            text = text[: min(ends)[1]]
        elif not ended:
            text = text.rstrip(REPLACEMENT)
            text = text[: len(text) - max((overlap(text, one) for one in self.stop), default=0)]
        new = text[len(self.shown) :]
        if not (new or ended or stopped):
            return None
        self.shown += new
        return Piece(-1, new, ended or stopped)


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, shorter than `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def stream(
    steps: Steps, decode: Callable[[Tensor], str], stop: Sequence[str] = ()
) -> Iterator[Piece]:
    """Text of each row as it is drawn, its prompt first; the joined pieces are what `decode` returns.

    Args:
        steps: the rows; a block of 1 shows each token at once.
        decode: tokens (T,) -> str, in which the text of a prefix is a prefix of the text, but for bytes
            of an incomplete character, which become U+FFFD.
        stop: strings that end a row where they first occur after its prompt; they are not shown.

    Raises:
        UserError: a stop string is empty.
    """
    for one in stop:
        require(bool(one), "--stop", repr(one), "give at least one character")
    rows: dict[int, _Row] = {}

    def pieces() -> list[Piece]:
        state, found = steps.state, []
        stopped = torch.zeros_like(state.ended)
        numbers, lengths, ended = state.rows.tolist(), state.lengths.tolist(), state.ended.tolist()
        for slot, number in enumerate(numbers):
            if number not in rows:
                prompt = state.tokens[slot, : int(state.prompt_lengths[slot])]
                rows[number] = _Row(decode(prompt.cpu()), stop)
            elif rows[number] is finished:
                continue
            text = decode(state.tokens[slot, : lengths[slot]].cpu())
            piece = rows[number].take(text, ended[slot])
            if piece is not None:
                found.append(piece._replace(row=number))
                if piece.ended:
                    rows[number] = finished
                    stopped[slot] = True
        if bool(stopped.any()):
            steps.state = state.end(stopped)
        return found

    finished = _Row("", ())
    yield from pieces()
    for _ in steps:
        yield from pieces()
