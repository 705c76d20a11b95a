"""The text of a row while it is drawn: what of it is final, and where a stop string ends it, across token borders.

tokens (bytes)   e2 82        ac          the first two bytes of a character are held back
shown                         "€"
text drawn       "the end."   " Pa"       with the stop string "\n\n", a "\n" at the end would be held back
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from arlm.domains import Domain
from arlm.errors import UserError, require

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
Decode = Callable[[Tensor], str]


class RowText:
    """The text of one row, of which a part was shown.

    Args:
        decode: tokens (T,) -> str, in which the text of a prefix is a prefix of the text, but for bytes of an
            incomplete character, which become U+FFFD.
        prompt: (P,) tokens; stop strings count after it.
        stop: strings that end the row where they first occur; they are not shown.
        shown: the beginning of the text that is not to be shown.
    """

    def __init__(
        self, decode: Decode, prompt: Tensor, stop: Sequence[str] = (), shown: str = ""
    ) -> None:
        self.decode, self.stop, self.shown = decode, stop, shown
        self.search_from, self.read = len(decode(prompt)), len(prompt)

    def take(self, tokens: Tensor, ended: bool) -> tuple[str, int | None]:
        """Read the row, which has grown to tokens (n,).

        Returns: text that follows what was shown and is final, and how many of the tokens it took to complete a
            stop string; None without one. It does not depend on how many tokens are read at a time.
        """
        text, count = self.decode(tokens), None
        if found := self._first(text):
            count = next(
                (
                    n
                    for n in range(self.read + 1, len(tokens))
                    if self._first(self.decode(tokens[:n])) == found
                ),
                len(tokens),
            )
            text = text[: found[1]]
        elif not ended:
            text = text.rstrip(REPLACEMENT)
            text = text[: len(text) - max((overlap(text, one) for one in self.stop), default=0)]
        self.read = len(tokens)
        new = text[len(self.shown) :]
        self.shown += new
        return new, count

    def _first(self, text: str) -> tuple[int, int] | None:
        """End and beginning of the stop string that ends first; of those that end together, of the longest."""
        found = [(text.find(one, self.search_from), len(one)) for one in self.stop]
        return min(((at + size, at) for at, size in found if at >= 0), default=None)


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, shorter than `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def check_stops(stop: Sequence[str], domain: Domain | None = None, field: str = "--stop") -> None:
    """Refuse a stop string that is empty, or that no row of tokens can spell.

    Args:
        stop: the strings.
        domain: of the texts; without one, only empty strings are refused.
        field: of the strings, for errors.
    """
    for one in stop:
        require(bool(one), field, repr(one), "give at least one character")
        if domain is not None and not spells(domain, one):
            raise UserError(
                f"{field}: the vocabulary cannot spell {one!r}, so it would never be found; choose another"
            )


def spells(domain: Domain, text: str) -> bool:
    """Whether some row of tokens decodes to a text that contains `text`."""
    try:
        if text in domain.decode(domain.encode(text)):
            return True
    except UserError:
        pass  # its ends may be parts of longer tokens
    first, following = _pieces(domain)
    pieces = first | following
    if any(text in piece for piece in pieces):
        return True
    # Places up to which the text can be spelled by the end of one token, and whole tokens that follow it.
    size = len(text)
    reached = {n for n in range(1, size) if any(piece.endswith(text[:n]) for piece in pieces)}
    for start in range(1, size):
        if start not in reached:
            continue
        rest = text[start:]
        if any(piece.startswith(rest) for piece in following):
            return True
        reached |= {start + len(piece) for piece in following if piece and rest.startswith(piece)}
    return False


@lru_cache(maxsize=2)
def _pieces(domain: Domain) -> tuple[frozenset[str], frozenset[str]]:
    """The text of each token that comes first, and what each token adds to that of the one before it."""
    alone = [domain.decode(torch.tensor([token])) for token in range(domain.vocab_size)]
    size = len(alone[0])
    added = (domain.decode(torch.tensor([0, token]))[size:] for token in range(domain.vocab_size))
    return frozenset(alone), frozenset(added)
