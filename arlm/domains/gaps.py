"""A text with gaps, each marked by [MASK], as tokens around the gaps."""

from __future__ import annotations

from torch import Tensor

from arlm.tokenizers import Tokenizer

MASK = "[MASK]"


def around_gaps(tokenizer: Tokenizer, text: str) -> list[Tensor]:
    """The tokens (P,) before, between and after the gaps of a text: one part more than it has gaps.

    A gap is one token. Where tokens begin with the space before a word, the space before a gap is part of the gap.
    """
    texts = text.split(MASK)
    if len(texts) > 1 and begins_with_space(tokenizer):
        texts = [*(part.removesuffix(" ") for part in texts[:-1]), texts[-1]]
    return [tokenizer.encode(part) for part in texts]


def begins_with_space(tokenizer: Tokenizer) -> bool:
    """Whether some tokens hold a space and what follows it."""
    _, later = tokenizer.spellings()
    return any(len(spelling) > 1 and spelling.startswith(b" ") for spelling in later)
