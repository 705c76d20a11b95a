"""Words and punctuation marks of sentences, for translation by words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor

from arlm.tokenizers.base import between_words
from arlm.tokenizers.library import LibraryTokenizer
from arlm.tokenizers.word import UNKNOWN_WORD

SPLIT = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])


class SentenceTokenizer(LibraryTokenizer):
    """One token for each word or punctuation mark, `<unk>` for all others.

    Decoding puts one space before each word and none before most marks. `<unk>` counts as one byte.

    Args:
        words: the vocabulary, the most frequent first.
    """

    def __init__(self, words: Iterable[str]) -> None:
        kept = list(dict.fromkeys([UNKNOWN_WORD, *words]))
        self.words = kept[1:]
        library = Library(models.WordLevel({w: i for i, w in enumerate(kept)}, UNKNOWN_WORD))
        library.pre_tokenizer = SPLIT
        library.decoder = decoders.WordPiece(prefix="\n")
        super().__init__(library)
        sizes = [1, *(len(word.encode()) for word in self.words)]
        self.token_bytes = torch.tensor(sizes, dtype=torch.float32)

    @classmethod
    def train(cls, lines: Iterable[str], min_count: int = 1) -> SentenceTokenizer:
        """A vocabulary of the words that occur at least `min_count` times in `lines`."""
        counts = Counter(word for line in lines for word, _ in SPLIT.pre_tokenize_str(line))
        frequent = (word for word, count in counts.items() if count >= min_count)
        return cls(sorted(frequent, key=lambda word: (-counts[word], word)))

    def ids(self, text: str, strict: bool) -> Tensor:
        parts = [super(SentenceTokenizer, self).ids(part, strict) for part in between_words(text)]
        return torch.cat([torch.zeros(0, dtype=torch.long), *parts])
