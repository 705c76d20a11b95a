"""ParallelDataModule: sentence pairs in two languages; tokenizers are trained on the training split only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

from arlm.data.folders import Split
from arlm.data.order import BatchOrder, LengthBuckets
from arlm.data.pair_module import PairDataModule
from arlm.data.pairs import Pairs, Sentences
from arlm.data.text_module import sentence_tokenizer
from arlm.domains import TranslationDomain
from arlm.errors import require
from arlm.tokenizers import Tokenizer


class ParallelDataModule(PairDataModule):
    """Pairs of sentences. A subclass writes `read`.

    Args:
        source, target: the languages, such as "de" and "en".
        tokenizer: "bpe"; "word": words and punctuation marks, `<unk>` for rare ones; "character"; "byte"; or
            the path of a tokenizer's JSON. Vocabularies come from the training split only.
        vocab_size: number of tokens for "bpe".
        min_count: how often a word or character must occur in the training split to get a token.
        joint: one tokenizer for both sides.
        lowercase: convert both sides to lower case.
        length: largest number of tokens in a sentence, the end token included. Longer training pairs are
            left out; in other splits they are refused.
        batch_tokens: largest number of tokens in a batch on either side, padding included.
        seed, num_workers: as for TokenDataModule.
    """

    kind: ClassVar[type[TranslationDomain]] = TranslationDomain

    def __init__(
        self,
        source: str = "de",
        target: str = "en",
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        min_count: int = 2,
        joint: bool = True,
        lowercase: bool = False,
        length: int = 128,
        batch_tokens: int = 2048,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(length, 1, seed, num_workers)
        require(batch_tokens >= 1, "data.batch_tokens", batch_tokens, "choose at least 1")
        require(vocab_size >= 256, "data.vocab_size", vocab_size, "choose at least 256")
        require(min_count >= 1, "data.min_count", min_count, "choose at least 1")
        self.source, self.target, self.tokenizer = source, target, tokenizer
        self.vocab_size, self.min_count, self.joint = vocab_size, min_count, joint
        self.lowercase, self.batch_tokens = lowercase, batch_tokens

    @cached_property
    def domain(self) -> TranslationDomain:  # type: ignore[override]
        train = self.tokenized
        if self.joint:
            both = self._tokenizer([*train.source, *train.target])
            return self.kind(both, None, self.lowercase)
        sides = self._tokenizer(train.source), self._tokenizer(train.target)
        return self.kind(*sides, self.lowercase)

    @property
    def tokenized(self) -> Sentences:
        """What tokenizers are trained on: by default the training split."""
        return self.sentences("train")

    def _tokenizer(self, lines: Sequence[str]) -> Tokenizer:
        if self.lowercase:
            lines = [line.lower() for line in lines]
        return sentence_tokenizer(self.tokenizer, lambda: lines, self.vocab_size, self.min_count)

    def order(self, split: Split) -> BatchOrder:
        pairs: Pairs = self.dataset(split)  # type: ignore[assignment]
        given = pairs.lengths, self.batch_tokens, split == "train", self.seed
        return LengthBuckets(*given, *self.processes)

    @property
    def protocol(self) -> str:
        return f"whole sentences, {self.source}-{self.target}"
