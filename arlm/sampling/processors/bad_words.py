"""Bad words: sequences of tokens that are never completed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor

from arlm.errors import UserError
from arlm.sampling.processors import History, LogitsProcessor, check_tokens
from arlm.sampling.spelling import check_bound, spellings

if TYPE_CHECKING:
    from arlm.domains import Domain

ANY = -(2**62)  # stands for any token


@dataclass(frozen=True)
class BadWords(LogitsProcessor):
    """Mask the last token of each word whose other tokens are the last ones of the row.

    Tokens of the prompt count, so a word that begins in the prompt is not completed either. A word of several
    tokenizations is one entry for each.

    A text in place of tokens is two words, as the tokenizer spells it and as it spells it after a space; one that
    begins with white space is one word. Other spellings of the same text stay possible.

    Order: before temperature and truncation, which then choose among the tokens that are left.

    Args:
        words: token sequences, of which one of a single token is never drawn, or texts. None changes nothing.
    """

    words: tuple[str | tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not all(self.words):
            raise UserError("bad_words: one has no token; omit it")

    def bind(self, domain: Domain) -> Self:
        forms = [
            spellings("bad_words", word, domain) if isinstance(word, str) else [tuple(word)]
            for word in self.words
        ]
        return replace(self, words=tuple(dict.fromkeys(chain.from_iterable(forms))))

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens before the last one of each word, ANY before its first, (W, L); last ones (W,); extremes (2,)."""
        check_bound("bad_words", self.words)
        longest = max(map(len, self.words))
        rows = [[ANY] * (longest - len(word)) + list(word) for word in self.words]
        table, tokens = np.array(rows, dtype=np.int64), chain.from_iterable(self.words)
        numbers = np.array(list(tokens), dtype=np.int64)
        return table[:, :-1], table[:, -1].copy(), np.array([numbers.min(), numbers.max()])

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if not self.words:
            return logits
        before, last, extremes = self._table
        check_tokens("bad_words", extremes.tolist(), history.spec)
        wanted = torch.from_numpy(before).to(logits.device)
        same = history.last(before.shape[1])[:, None] == wanted  # (B, W, L)
        completed = (same | (wanted == ANY)).all(-1)
        # A sum, since words may have the same last token.
        bias = torch.zeros_like(completed, dtype=logits.dtype).masked_fill_(completed, -torch.inf)
        return logits.index_add(1, torch.from_numpy(last).to(logits.device), bias)
