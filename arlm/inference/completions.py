"""Completions of a text that ends in the middle of a token, such as "impor", ranked by their probability.

    text       f r o m _ i m p o r
    before     f r o m                     the text before the token that holds its last character
    rest               _ i m p o r         which " import" and " important" begin with
               f r o m _ i m               and so on: " import", but also "por", "port", "portant" after " im"

The tokens of the text itself would be those of a text that ends there, after which "t" is unlikely: in training, " import"
is one token. So the token that holds the last character is drawn anew, wherever it begins.

References:
    | The Art of Prompt Design: Prompt Boundaries and Token Healing (Lundberg, 2023), with the last token only
    | https://towardsdatascience.com/the-art-of-prompt-design-prompt-boundaries-and-token-healing-3b2448b0be38
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.errors import UserError
from arlm.inference.next_token import next_token
from arlm.sampling.processors import LogitsProcessor
from arlm.tokenizers import Tokenizer


class Completion(NamedTuple):
    """What may follow a text up to the end of the token that holds its last character."""

    added: str  # "" if the token ends with the text
    probability: float  # of all that begins with the text


def completions(
    net: Autoregressor,
    tokenizer: Tokenizer,
    text: str,
    processors: Sequence[LogitsProcessor] = (),
    context: Tensor | None = None,
    seed: int = 0,
    field: str = "--prompt",
) -> list[Completion]:
    """The completions of a text, the likeliest first.

    The probability is that of rows of tokens whose text begins with the text, given that what is before the token that
    holds its last character is spelled as the tokenizer spells it. It is summed over the places where that token may
    begin, and over tokens that add the same.

    Args:
        net: a network of texts.
        tokenizer: of its tokens; one that adds no text to a row, such as an end token, completes nothing.
        text: at least one character.
        processors: of the distributions, in order.
        context: (1, S) int64, or None.
        seed: of the row, for processors that draw.
        field: of the text, for errors.
    """
    known: dict[tuple[int, ...], Tensor] = {}

    def nats(before: tuple[int, ...]) -> Tensor:
        """Log-probabilities (V,) after some tokens."""
        if before not in known:
            prompt = torch.tensor(before, dtype=torch.long)
            known[before] = next_token(net, prompt, processors, context, seed)[-1].log_prob
        return known[before]

    places = list(_places(tokenizer, text))
    if not places:
        raise UserError(
            f"{field}: no token has the end of {text!r} at its beginning; choose another text"
        )
    shared = _shared([before for before, _ in places])
    found: defaultdict[str, list[float]] = defaultdict(list)
    for before, tokens in places:
        steps = range(shared, len(before))
        path = sum(float(nats(before[:step])[before[step]]) for step in steps)
        for token, added in tokens.items():
            found[added].append(path + float(nats(before)[token]))
    sums = {
        added: torch.tensor(each, dtype=torch.float64).logsumexp(0) for added, each in found.items()
    }
    total = torch.stack(list(sums.values())).logsumexp(0)
    if total == -math.inf:
        raise UserError(
            f"--processors: they leave no token that completes {text!r}; omit one, or give another {field}"
        )
    ranked = [Completion(added, float((one - total).exp())) for added, one in sums.items()]
    return sorted(ranked, key=lambda one: (-one.probability, one.added))


def _places(tokenizer: Tokenizer, text: str) -> Iterator[tuple[tuple[int, ...], dict[int, str]]]:
    """Where the token that holds the last character may begin: the tokens before it, and what each token would add."""
    first, later = tokenizer.spellings()
    longest, raw = max(map(len, [*first, *later])), text.encode()
    within = _within(_tokens_of(tokenizer, text) or (), first, later, raw)
    for cut in range(len(raw) - 1, max(-1, len(raw) - longest - 1), -1):
        tokens = {
            token: spelling[len(raw) - cut :].decode(errors="replace")
            for token, spelling in enumerate(later if cut else first)
            if spelling.startswith(raw[cut:])
        }
        if not tokens:
            continue
        if raw[cut] & 0xC0 == 0x80:  # within a character
            before = within.get(cut)
        else:
            before = _tokens_of(tokenizer, raw[:cut].decode())
        if before is not None:
            yield before, tokens


def _within(
    tokens: tuple[int, ...], first: Sequence[bytes], later: Sequence[bytes], raw: bytes
) -> dict[int, tuple[int, ...]]:
    """Where the tokens of a text begin, in bytes, and the tokens before."""
    found, size = {}, 0
    for index, token in enumerate(tokens):
        found[size] = tokens[:index]
        size += len(later[token] if index else first[token])
    return found if size == len(raw) else {}


def _tokens_of(tokenizer: Tokenizer, text: str) -> tuple[int, ...] | None:
    """The tokens of a text; None if it is not exactly theirs, as a tokenizer by words drops a space at the end."""
    if not text:
        return ()
    try:
        tokens = tokenizer.encode(text)
    except UserError:
        return None
    return tuple(tokens.tolist()) if tokenizer.decode(tokens) == text else None


def _shared(rows: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all rows begin with."""
    return next(
        (i for i, each in enumerate(zip(*rows, strict=False)) if len(set(each)) > 1),
        min(map(len, rows)),
    )
