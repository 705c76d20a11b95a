"""Words between white space, as Penn Treebank and WikiText are published."""

from __future__ import annotations

import json
from collections.abc import Iterable

import torch
from torch import Tensor

from arlm.errors import UserError
from arlm.tokenizers.base import Tokenizer, between_words, utf8_bytes

UNKNOWN_WORD, END_OF_LINE = "<unk>", "<eos>"


class WordTokenizer(Tokenizer):
    """One token for each word between white space, `<eos>` for the end of a line, `<unk>` for other words.

    Decoding puts one space before each word. A word counts as its bytes and one for the space before it; the
    end of a line counts as two bytes, its space and the newline.

    Args:
        words: the vocabulary, the most frequent first.
    """

    def __init__(self, words: Iterable[str]) -> None:
        kept = list(dict.fromkeys([UNKNOWN_WORD, END_OF_LINE, *words]))
        self.words = kept[2:]
        self._vocabulary = {word: i for i, word in enumerate(kept)}
        self._texts = ["\n" if word == END_OF_LINE else word for word in kept]
        self.vocab_size = len(kept)
        self.token_bytes = utf8_bytes(self._texts) + 1

    @property
    def definition(self) -> str:
        return json.dumps(self.words)

    def ids(self, text: str, strict: bool) -> Tensor:
        parts = [torch.zeros(0, dtype=torch.int32)]
        for piece in between_words(text):
            words = piece.replace("\n", f" {END_OF_LINE} ").split()
            lost = [w for w in words if w not in self._vocabulary] if strict else []
            if lost:
                raise UserError(f"text: the word {lost[0]!r} is not in the vocabulary; use others")
            unknown = self._vocabulary[UNKNOWN_WORD]
            found = [self._vocabulary.get(word, unknown) for word in words]
            parts.append(torch.tensor(found, dtype=torch.int32))
        return torch.cat(parts).long()

    def decode(self, tokens: Tensor) -> str:
        return " ".join(map(self._texts.__getitem__, tokens.tolist()))
