"""Tokens as coloured text: by their surprise, with the likeliest alternatives, or by the difference of two models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from arlm.inference.items import ItemScores
from arlm.reports.page import fragment

SHADES = 16  # of a colour; the style sheet has a class for each
FULL_BITS = 8.0  # bits from which the colour of surprise is full
FULL_DIFFERENCE = 3.0  # bits from which the colour of a difference is full
BEFORE = 4  # tokens around a token that are decoded to find its text: a character has up to 4 bytes
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Span(NamedTuple):
    """Text with one colour."""

    text: str
    shade: str  # a class of the style sheet, "" for none
    note: str  # what is shown on hover, focus or touch


def pieces(tokens: Tensor, decode: Callable[[Tensor], str]) -> list[str]:
    """The text that each token (N,) adds to the text of those before it.

    The bytes of one character are tokens of a byte-level tokenizer: the last of them has the character, and the
    others have no text.
    """

    def settled(first: int, end: int) -> str:
        """The text of tokens from `first` to `end`, without the bytes at the end that wait for others."""
        text = decode(tokens[first:end]) if end > first else ""
        waits = text.endswith(REPLACEMENT)
        if waits and not decode(tokens[first : end + BEFORE - 1]).startswith(text):
            return text.rstrip(REPLACEMENT)
        return text

    found: list[str] = []
    whole = [0]  # where characters end, so that decoding may start there
    for index in range(len(tokens)):
        before, text = settled(whole[0], index), settled(whole[0], index + 1)
        found.append(
            text[len(before) :] if text.startswith(before) else decode(tokens[index, None])
        )
        if found[-1]:
            whole = [*whole[1 - BEFORE :], index + 1]
    return found


def visible(piece: str) -> str:
    """A piece for a note, with visible white space."""
    return piece.replace("\n", "⏎").replace("\t", "⇥").replace(" ", "␣") or REPLACEMENT


def percent(nats: float) -> str:
    """A probability in per cent, from its nats."""
    share = 100 * math.exp(-nats)
    return f"{share:.0f} %" if share >= 10 else f"{share:.2g} %"


def by_surprise(
    scored: ItemScores, own: Sequence[str], alternatives: Sequence[Sequence[str]], left: int = 0
) -> str:
    """Tokens as HTML, coloured by their surprise.

    Args:
        scored: nats, ranks and alternatives of the tokens.
        own: the text of each token.
        alternatives: the texts of its `scored.top`; empty if there are none.
        left: number of tokens that follow and are not shown.
    """
    notes, shades = [], []
    for index, nats in enumerate(scored.nats.tolist()):
        bits = nats / math.log(2)
        note = f"{visible(own[index])} {bits:.2f} bits, {percent(nats)}"
        if alternatives:
            others = zip(alternatives[index], scored.top_nats[index].tolist(), strict=True)
            note += f", rank {int(scored.ranks[index])} · likeliest: " + " · ".join(
                f"{visible(text)} {percent(other)}" for text, other in others
            )
        notes.append(note)
        shades.append(shade("s", bits / FULL_BITS))
    return coloured(own, shades, notes, left)


def by_difference(
    a: Tensor, b: Tensor, own: Sequence[str], names: tuple[str, str], left: int = 0
) -> str:
    """Tokens as HTML, coloured by which of two models gave them more probability.

    Args:
        a, b: nats of the tokens under both models, (N,).
        own: the text of each token.
        names: of the models.
        left: number of tokens that follow and are not shown.
    """
    notes, shades = [], []
    for ours, theirs, text in zip(a.tolist(), b.tolist(), own, strict=True):
        bits = (theirs - ours) / math.log(2)
        better = names[0] if bits > 0 else names[1]
        values = f"{ours / math.log(2):.2f} and {theirs / math.log(2):.2f} bits"
        notes.append(f"{visible(text)} {abs(bits):.2f} bits better: {better} ({values})")
        shades.append(shade("a" if bits > 0 else "b", abs(bits) / FULL_DIFFERENCE))
    return coloured(own, shades, notes, left)


def shade(kind: str, share: float) -> str:
    """The class of a colour at a share of its full strength; "" for none."""
    level = round(SHADES * min(1.0, max(0.0, share)))
    return f"{kind}{level}" if level else ""


def coloured(texts: Sequence[str], shades: Sequence[str], notes: Sequence[str], left: int) -> str:
    """Spans as HTML; a token without text is shown as a dot."""
    spans = [Span(text or "·", *rest) for text, *rest in zip(texts, shades, notes, strict=True)]
    return fragment("tokens.html", spans=spans, left=left)
