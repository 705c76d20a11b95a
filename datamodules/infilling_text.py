"""Fill in the middle: a text for causal networks, some rows of which have their middle at the end.

Only training rows are permuted; validation and test are those of the text, so the figures of a network that
fills gaps are compared with those of a plain one.

References:
    | Efficient Training of Language Models to Fill in the Middle (Bavarian et al., 2022)
    | https://arxiv.org/abs/2207.14255
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import Batch, Spec
from arlm.data.corrupted import CorruptedTextModule, RowNoise, inside
from arlm.data.dataset import Rows, TokenDataset
from arlm.data.folders import Split
from arlm.data.text_module import TextDataModule
from arlm.data.windows import TextDataset, TextWindows
from arlm.domains import InfillingDomain
from arlm.errors import require
from arlm.tokenizers import Tokenizer

ADDED = 4  # tokens of a permuted row that are no text


class InfillingText(CorruptedTextModule):
    """Windows of a text, a share of which is written as prefix, suffix, middle in training.

    A permuted row is as long as its window: the window's last 4 tokens make room for the tokens between the parts,
    which are given and not scored, but for the end of the middle. Where the middle begins and ends is drawn
    uniformly.

    Args:
        text: the text; its windows are the rows.
        rate: share of the training rows that are permuted, 0 to 1.
    """

    domain: InfillingDomain

    def __init__(self, text: TextDataModule, rate: float = 0.5) -> None:
        super().__init__(text)
        require(0 <= rate <= 1, "data.rate", rate, "choose 0 to 1")
        require(text.length > ADDED, "data.text.length", text.length, f"choose above {ADDED}")
        self.rate = rate

    def domain_of(self, tokenizer: Tokenizer) -> InfillingDomain:
        return InfillingDomain(tokenizer)

    @property
    def spec(self) -> Spec:
        return self.domain.spec(self.text.length)

    @property
    def protocol(self) -> str:
        return self.text.protocol

    def words(self, split: Split) -> int:
        return self.text.words(split)

    def build(self, split: Split) -> TokenDataset:  # type: ignore[override]
        return super().build(split) if split == "train" else self.text.dataset(split)

    def corrupt(self, batch: Batch, noise: RowNoise, split: TextDataset, rows: Rows) -> Batch:
        numbers = torch.cat([noise.uniform(0, 1), noise.uniform(1, 2)], dim=1)
        found = [
            self._row(tokens, scored, given)
            for tokens, scored, given in zip(batch.tokens, batch.scored, numbers, strict=True)
        ]
        tokens, scored = (torch.stack(side) for side in zip(*found, strict=True))
        return Batch(tokens, scored, self.domain.units(tokens))

    def _row(self, tokens: Tensor, scored: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """A training row (T,) and which tokens are scored."""
        size = int(inside(scored[None]).sum())
        if float(numbers[0]) >= self.rate or size <= ADDED:
            return tokens, scored
        row = self.domain.permuted(tokens[: size - ADDED], *middle(numbers[1:], size - ADDED))
        given = (row >= self.domain.prefix_id) & (row != self.domain.end_id)
        return torch.cat([row, tokens[size:]]), torch.cat([~given, scored[size:]])

    def middles(self, split: Split) -> Iterator[tuple[Batch, Batch]]:
        """Disjoint windows of a split with a middle each, which alone is scored, twice: behind prefix and suffix, and
        behind the prefix alone. The places are fixed by the seed.
        """
        given = self.text.corpus(split), self.text.domain, self.text.length, self.text.length
        windows = TextWindows(*given, separate_documents=self.text.separate_documents)
        for chosen in torch.arange(len(windows)).split(self.batch_size):
            batch = windows[Rows(0, chosen)]
            numbers = RowNoise(self.seed, 0, chosen).uniform(1, 2)
            sides: tuple[list[Tensor], list[Tensor]] = ([], [])
            sizes = []
            for row, scored, where in zip(batch.tokens, batch.scored, numbers, strict=True):
                text = row[scored][: self.text.length - ADDED]
                first, end = middle(where, len(text))
                prompt = self.domain.prompt(text[:first], text[end:])
                sides[0].append(torch.cat([prompt, text[first:end]]))
                sides[1].append(text[:end])
                sizes.append(end - first)
            yield tuple(self._scored_ends(side, sizes) for side in sides)  # type: ignore[misc]

    def _scored_ends(self, rows: list[Tensor], sizes: list[int]) -> Batch:
        """Rows of which the last `sizes` tokens are scored."""
        tokens = pad_sequence(rows, True, 0)
        slots, ends = torch.arange(tokens.shape[1]), torch.tensor([len(row) for row in rows])
        scored = (slots < ends[:, None]) & (slots >= (ends - torch.tensor(sizes))[:, None])
        return Batch(tokens, scored, self.domain.units(tokens))


def middle(numbers: Tensor, length: int) -> tuple[int, int]:
    """First token of the middle of a text and the one after it, two places of the L + 1 in order.

    Args:
        numbers: (2,) uniform in [0, 1).
        length: tokens of the text, L.
    """
    first, end = (numbers * (length + 1)).long().sort().values.tolist()
    return first, end
