"""PairDataModule: any source with a text as target."""

from __future__ import annotations

import sys
from abc import abstractmethod
from functools import cached_property

from arlm.core import Spec
from arlm.data.dataset import TokenDataset
from arlm.data.folders import Split
from arlm.data.module import TokenDataModule
from arlm.data.pairs import Pairs, Sentences
from arlm.domains import PairDomain
from arlm.errors import UserError, require


class PairDataModule(TokenDataModule):
    """Sources, which are conditioned on, and texts, which are modelled. A subclass writes `domain` and `read`.

    Args:
        length: largest number of tokens in a text, the end token included, and in a source of no fixed size.
            Longer training pairs are left out; in other splits they are refused.
        batch_size, seed, num_workers: as for TokenDataModule.
    """

    domain: PairDomain

    def __init__(self, length: int, batch_size: int, seed: int, num_workers: int) -> None:
        super().__init__(batch_size, seed, num_workers)
        require(length >= 2, "data.length", length, "choose at least 2")
        self.length = length
        self._sentences: dict[Split, Sentences] = {}

    @abstractmethod
    def read(self, split: Split) -> Sentences:
        """Both sides of one split. Called once for each."""

    def sentences(self, split: Split) -> Sentences:
        """One split, read when first used."""
        if split not in self._sentences:
            self._sentences[split] = self.read(split)
        return self._sentences[split]

    @property
    def spec(self) -> Spec:
        return self.domain.spec(self.length)

    def build(self, split: Split) -> TokenDataset:
        source, target = self.sentences(split)
        sources = [self.domain.encode_source(native) for native in source]
        targets = [self.domain.encode(line) for line in target]
        context = self.spec.context
        longest = context.length if context else 0
        long = [
            i
            for i, pair in enumerate(zip(sources, targets, strict=True))
            if len(pair[0]) > longest or len(pair[1]) > self.length
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

    def words(self, split: Split) -> int:
        """Words of the target side, separated by white space; 0 if its tokens are characters or bytes."""
        if not self.domain.target_tokenizer.counts_words:
            return 0
        return sum(len(line.split()) for line in self.sentences(split).target)

    def content(self, split: Split) -> bytes:
        """What is hashed as a split's origin: both sides."""
        source, target = self.sentences(split)
        return "\n".join([*map(str, source), *target]).encode()

    @cached_property
    def provenance(self) -> dict[str, str]:
        return self.recorded(self.content)
