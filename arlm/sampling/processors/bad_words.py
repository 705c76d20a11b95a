"""Bad words: sequences of tokens that are never completed."""

from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from arlm.errors import UserError
from arlm.sampling.processors import History, LogitsProcessor, check_tokens

ANY = -(2**62)  # stands for any token


@dataclass(frozen=True)
class BadWords(LogitsProcessor):
    """Mask the last token of each word whose other tokens are the last ones of the row.

    Tokens of the prompt count, so a word that begins in the prompt is not completed either. A word of several
    tokenizations is one entry for each.

    Order: before temperature and truncation, which then choose among the tokens that are left.

    Args:
        words: token sequences; one of a single token is never drawn. None changes nothing.
    """

    words: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not all(self.words):
            raise UserError("bad_words: one has no token; omit it")

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens before the last one of each word, ANY before its first, (W, L); last ones (W,); extremes (2,)."""
        longest = max(map(len, self.words))
        rows = [[ANY] * (longest - len(word)) + list(word) for word in self.words]
        table, tokens = np.array(rows, dtype=np.int64), list(chain.from_iterable(self.words))
        return table[:, :-1], table[:, -1].copy(), np.array([min(tokens), max(tokens)])

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
