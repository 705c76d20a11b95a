"""Text for causal networks that fill a gap: prefix, suffix and middle in this order, between tokens of their own.

    text   a b c d e f g h
    row    <prefix> a b c <suffix> f g h <middle> d e <end>

References:
    | Efficient Training of Language Models to Fill in the Middle (Bavarian et al., 2022)
    | https://arxiv.org/abs/2207.14255
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from arlm.core import Spec
from arlm.domains.text import TextDomain
from arlm.tokenizers import Tokenizer


class InfillingDomain(TextDomain):
    """str <-> tokens, with four tokens after those of the tokenizer, which no text can hold and which have no bytes.

    The end of a middle is the end of its row.

    Args:
        tokenizer: of the text.
    """

    view = "arlm.reports.infilling_view.InfillingView"

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        size = tokenizer.vocab_size
        self.prefix_id, self.suffix_id, self.middle_id, self.end_id = range(size, size + 4)
        self.vocab_size = size + 4
        self._bytes = torch.cat([tokenizer.token_bytes, torch.zeros(4)])

    def spec(self, length: int) -> Spec:
        return replace(super().spec(length), eos_id=self.end_id)

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) -> str; the tokens between the parts of a row are left out."""
        return super().decode(tokens[tokens < self.tokenizer.vocab_size])

    def units(self, tokens: Tensor) -> Tensor:
        return self._bytes.to(tokens.device)[tokens]

    def prompt(self, prefix: Tensor, suffix: Tensor) -> Tensor:
        """What comes before the middle of a row, (P + S + 3,), given prefix (P,) and suffix (S,)."""
        marks = prefix.new_tensor([self.prefix_id, self.suffix_id, self.middle_id])
        return torch.cat([marks[:1], prefix, marks[1:2], suffix, marks[2:]])

    def permuted(self, tokens: Tensor, first: int, end: int) -> Tensor:
        """A text (L,) whose middle is tokens [first, end) -> the row (L + 4,)."""
        prompt = self.prompt(tokens[:first], tokens[end:])
        return torch.cat([prompt, tokens[first:end], tokens.new_tensor([self.end_id])])

    def restored(self, row: Tensor) -> Tensor:
        """A row of `permuted` -> the text (L,)."""
        suffix, middle, end = (
            int((row == mark).nonzero()[0])
            for mark in (self.suffix_id, self.middle_id, self.end_id)
        )
        return torch.cat([row[1:suffix], row[middle + 1 : end], row[suffix + 1 : middle]])
