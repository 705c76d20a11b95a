"""Pairs of a word and a neighbour, from any text, for word vectors."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from arlm.core import Batch, Spec
from arlm.data.corrupted import RowNoise
from arlm.data.dataset import Rows, TokenDataset
from arlm.data.folders import Split
from arlm.data.module import TokenDataModule
from arlm.data.text_module import TextDataModule
from arlm.domains import Domain, TextDomain
from arlm.domains.neighbour import NeighbourDomain
from arlm.errors import require

LARGEST = 2**28  # tokens that are held in memory


class NeighbourPairs(TokenDataset):
    """One split: a row of the data set is a position of the text, and a batch has the pairs of its positions.

    Args:
        tokens: the text, (N,) int64.
        owner: the data module.
        training: draw the window and the words that are kept anew in each epoch; else all pairs are given.
    """

    def __init__(self, tokens: Tensor, owner: Neighbours, training: bool) -> None:
        self.tokens, self.owner, self.training = tokens, owner, training
        self.offsets = torch.cat(
            [torch.arange(-owner.window, 0), torch.arange(1, owner.window + 1)]
        )
        self.kept: Tensor | None = None
        if training and owner.subsample:
            counts = tokens.bincount(minlength=owner.domain.vocab_size).double()
            share = counts / len(tokens)
            self.kept = (owner.subsample / share.clamp(min=1e-12)).sqrt().clamp(max=1)

    def __len__(self) -> int:
        return len(self.tokens)

    def _pairs(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Centres (R,), positions of their neighbours (R, 2 w), and which of these count."""
        places = rows.chosen[:, None] + self.offsets
        there = (places >= 0) & (places < len(self.tokens))
        if self.training:
            noise = RowNoise(self.owner.seed, rows.epoch + 1, rows.chosen)
            window = 1 + (noise.uniform(0, 1) * self.owner.window).long()
            there &= self.offsets.abs() <= window
            if self.kept is not None:
                centres = self.tokens[rows.chosen]
                there &= (noise.uniform(1, 1)[:, 0] < self.kept[centres])[:, None]
                neighbours = self.tokens[places.clamp(0, len(self.tokens) - 1)]
                there &= noise.uniform(2, places.shape[1]) < self.kept[neighbours]
        return rows.chosen, places, there

    def __getitem__(self, rows: Rows) -> Batch:
        centres, places, there = self._pairs(rows)
        which = there.nonzero()[:, 0]
        tokens = self.tokens[places[there]][:, None]
        context = self.tokens[centres[which]][:, None]
        scored = torch.ones_like(tokens, dtype=torch.bool)
        return Batch(tokens, scored, self.owner.domain.units(tokens), context)

    def positions(self, rows: Rows) -> Tensor:
        _, _, there = self._pairs(rows)
        numbers = rows.chosen[:, None] * len(self.offsets) + torch.arange(len(self.offsets))
        return numbers[there][:, None]


class Neighbours(TokenDataModule):
    """Each word of a text with the words around it.

    Args:
        text: the text, which gives the tokenizer; its rows and batches are not used.
        window: the farthest neighbour; in training each word draws its own, from 1 to this.
        subsample: training pairs of a word of share f of the text are kept with probability sqrt(subsample / f);
            None keeps all.
        batch_size: words in the middle of a batch, each with up to 2 * window neighbours.
        seed, num_workers: as for TokenDataModule.

    References:
        | Distributed Representations of Words and Phrases and their Compositionality (Mikolov et al., 2013), section 2.3
        | https://arxiv.org/abs/1310.4546
    """

    def __init__(
        self,
        text: TextDataModule,
        window: int = 4,
        subsample: float | None = 1e-3,
        batch_size: int = 256,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        require(1 <= window <= 100, "data.window", window, "choose 1 to 100")
        fits = subsample is None or 0 < subsample <= 1
        require(fits, "data.subsample", subsample, "choose above 0 to 1, or null for none")
        self.text, self.window, self.subsample = text, window, subsample
        self._domain: NeighbourDomain | None = None

    @property
    def domain(self) -> NeighbourDomain:  # type: ignore[override]
        """The domain; when it is set, as with that of a checkpoint, the text is read with its tokenizer."""
        if self._domain is None:
            self._domain = NeighbourDomain(self.text.domain.tokenizer)
        return self._domain

    @domain.setter
    def domain(self, domain: Domain) -> None:
        assert isinstance(domain, NeighbourDomain)
        self._domain, self.text.domain = domain, TextDomain(domain.tokenizer)

    @property
    def spec(self) -> Spec:
        return self.domain.spec()

    def prepare_data(self) -> None:
        self.text.prepare_data()

    def tokens(self, split: Split) -> Tensor:
        """The tokens of a split, (N,) int64."""
        corpus = self.text.corpus(split)
        mend = f"give a text of at most {LARGEST} tokens, which are held in memory"
        require(len(corpus) <= LARGEST, "data.text", len(corpus), mend)
        return corpus.whole()

    def build(self, split: Split) -> TokenDataset:
        return NeighbourPairs(self.tokens(split), self, split == "train")

    @property
    def protocol(self) -> str:
        return f"all pairs within {self.window} words"

    @cached_property
    def provenance(self) -> dict[str, str]:
        return self.text.provenance | {"protocol": self.protocol}
