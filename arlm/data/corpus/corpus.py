"""A text as tokens, in memory or in a file, and where its documents start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from arlm.data.corpus.token_file import TokenFile
from arlm.tokenizers import Tokenizer


class Corpus:
    """A text as tokens, in memory or in a file, and where its documents start.

    Args:
        tokens: (N,) integers, or the file that contains them.
        documents: (D,) int64, the first token of each document; one document by default.
        words: number of words in the text, as `count_words` counts them.
    """

    def __init__(
        self, tokens: Tensor | TokenFile, documents: np.ndarray | None = None, words: int = 0
    ) -> None:
        self._tokens = tokens.numpy() if isinstance(tokens, Tensor) else tokens
        self.documents = np.zeros(1, np.int64) if documents is None else documents
        self.words = words

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, starts: Tensor, length: int) -> Tensor:
        """Rows of `length` tokens that start at `starts` (B,): (B, length) int64."""
        if isinstance(self._tokens, TokenFile):
            found = self._tokens.rows(starts.numpy(), length)
        else:
            found = self._tokens[starts.numpy()[:, None] + np.arange(length)]
        return torch.from_numpy(found.astype(np.int64))

    def whole(self) -> Tensor:
        """All tokens, (N,) int64, in memory."""
        return self.read(torch.zeros(1).long(), len(self))[0]


def in_memory(documents: Sequence[str], tokenizer: Tokenizer) -> Corpus:
    """A corpus of documents that are strings."""
    parts = [tokenizer.encode(text, strict=False) for text in documents]
    starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
    words = sum(count_words(text) for text in documents)
    return Corpus(torch.cat(parts), starts, words=words)


def count_words(text: str) -> int:
    """Words separated by white space, plus one per newline, as word-level language models count."""
    return len(text.split()) + text.count("\n")
