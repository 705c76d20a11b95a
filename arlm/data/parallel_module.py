"""ParallelDataModule: sentence pairs in two languages; tokenizers are trained on the training split only."""

from __future__ import annotations

import hashlib
import sys
from abc import abstractmethod
from functools import cached_property, partial

from arlm.core import Spec
from arlm.data.dataset import TokenDataset
from arlm.data.folders import Split
from arlm.data.module import TokenDataModule
from arlm.data.order import BatchOrder, LengthBuckets
from arlm.data.pairs import Pairs, Sentences
from arlm.data.text_module import make_tokenizer
from arlm.domains import TranslationDomain
from arlm.errors import UserError, require
from arlm.tokenizers import BPETokenizer, CharacterTokenizer, SentenceTokenizer, Tokenizer


class ParallelDataModule(TokenDataModule):
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
        super().__init__(1, seed, num_workers)
        require(length >= 2, "data.length", length, "choose at least 2")
        require(batch_tokens >= 1, "data.batch_tokens", batch_tokens, "choose at least 1")
        require(vocab_size >= 256, "data.vocab_size", vocab_size, "choose at least 256")
        require(min_count >= 1, "data.min_count", min_count, "choose at least 1")
        self.source, self.target, self.tokenizer = source, target, tokenizer
        self.vocab_size, self.min_count, self.joint = vocab_size, min_count, joint
        self.lowercase, self.length, self.batch_tokens = lowercase, length, batch_tokens
        self._sentences: dict[Split, Sentences] = {}

    @abstractmethod
    def read(self, split: Split) -> Sentences:
        """Both sides of one split. Called once for each."""

    def sentences(self, split: Split) -> Sentences:
        """One split, read when first used."""
        if split not in self._sentences:
            self._sentences[split] = self.read(split)
        return self._sentences[split]

    @cached_property
    def domain(self) -> TranslationDomain:  # type: ignore[override]
        train = self.sentences("train")
        if self.joint:
            both = self._tokenizer([*train.source, *train.target])
            return TranslationDomain(both, None, self.lowercase)
        sides = self._tokenizer(train.source), self._tokenizer(train.target)
        return TranslationDomain(*sides, self.lowercase)

    def _tokenizer(self, lines: list[str]) -> Tokenizer:
        if self.lowercase:
            lines = [line.lower() for line in lines]
        return make_tokenizer(
            self.tokenizer,
            lambda: lines,
            bpe=partial(BPETokenizer.train, vocab_size=self.vocab_size),
            word=partial(SentenceTokenizer.train, min_count=self.min_count),
            character=partial(CharacterTokenizer.train, unknown=True, min_count=self.min_count),
        )

    @property
    def spec(self) -> Spec:
        return self.domain.spec(self.length)

    def build(self, split: Split) -> TokenDataset:
        source, target = self.sentences(split)
        sources = [self.domain.encode_source(line) for line in source]
        targets = [self.domain.encode(line) for line in target]
        long = [
            i
            for i, pair in enumerate(zip(sources, targets, strict=True))
            if max(map(len, pair)) > self.length
        ]
        if long and split != "train":
            i = long[0]
            raise UserError(
                f"data.length: pair {i + 1} of the {split} split has {len(sources[i])} and "
                f"{len(targets[i])} tokens, more than {self.length}; raise it, so that none is left out"
            )
        if long:
            print(
                f"note: {len(long)} of {len(sources)} training pairs are longer than "
                f"{self.length} tokens and are left out",
                file=sys.stderr,
            )
            left_out = set(long)
            sources, targets = (
                [tokens for i, tokens in enumerate(side) if i not in left_out]
                for side in (sources, targets)
            )
        return Pairs(sources, targets, self.domain)

    def order(self, split: Split) -> BatchOrder:
        pairs: Pairs = self.dataset(split)  # type: ignore[assignment]
        given = pairs.lengths, self.batch_tokens, split == "train", self.seed
        return LengthBuckets(*given, *self.processes)

    def words(self, split: Split) -> int:
        """Words of the target side, separated by white space; 0 if its tokens are characters or bytes."""
        if not self.domain.target_tokenizer.counts_words:
            return 0
        return sum(len(line.split()) for line in self.sentences(split).target)

    @property
    def protocol(self) -> str:
        return f"whole sentences, {self.source}-{self.target}"

    @cached_property
    def provenance(self) -> dict[str, str]:
        record = {"name": type(self).__name__, "protocol": self.protocol}
        splits: list[Split] = ["train", "val", "test"]
        for split in splits:
            text = "\n".join(line for side in self.sentences(split) for line in side)
            record[f"{split}_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        return record
