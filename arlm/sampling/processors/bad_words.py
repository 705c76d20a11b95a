"""Bad words: sequences of tokens that are never completed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arlm.errors import UserError
from arlm.sampling.processors import History, LogitsProcessor, check_tokens, masked_tokens
from arlm.sampling.spelling import check_bound, spellings

if TYPE_CHECKING:
    from arlm.domains import Domain


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

    def bind(self, domain: Domain) -> BadWords:
        forms = [
            spellings("bad_words", word, domain) if isinstance(word, str) else [tuple(word)]
            for word in self.words
        ]
        return BadWords(tuple(dict.fromkeys(chain.from_iterable(forms))))

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        check_bound("bad_words", self.words)
        check_tokens("bad_words", chain.from_iterable(self.words), history.spec)  # type: ignore[arg-type]
        by_length = defaultdict(list)
        for word in self.words:
            by_length[len(word)].append(word)
        last_tokens, completed = [], []
        for length, words in by_length.items():
            each = torch.tensor(words, device=logits.device)  # (words, length)
            last = history.last(length - 1)
            completed.append((last[:, None] == each[:, :-1]).all(-1))  # (B, words)
            last_tokens.append(each[:, -1].expand(len(logits), -1))
        if not completed:
            return logits
        return masked_tokens(logits, torch.cat(last_tokens, 1), torch.cat(completed, 1))
