"""Span corruption of any text: the source is the text with gaps, and the target holds what is missing.

Which spans are missing is drawn anew in each epoch, and fixed in evaluation.

References:
    | Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (Raffel et al., 2020), T5
    | https://arxiv.org/abs/1910.10683
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import Batch, Spec
from arlm.data.corrupted import CorruptedRows, CorruptedTextModule, RowNoise, inside
from arlm.data.dataset import Rows
from arlm.data.folders import Split
from arlm.data.spans import span_counts, span_mask
from arlm.data.text_module import TextDataModule
from arlm.data.windows import TextDataset, TextWindows
from arlm.domains import SpanDomain
from arlm.errors import require
from arlm.tokenizers import Tokenizer


class SpanRows(CorruptedRows):
    """One split; a row is the target of a window."""

    owner: SpanText

    def counted(self) -> Tensor:
        """The targets of all windows, one after the other, (1, N)."""
        batch = self[Rows(0, torch.arange(len(self)))]
        return batch.tokens[batch.scored][None]

    def positions(self, rows: Rows) -> Tensor:
        longest = self.owner.spec.length
        return rows.chosen[:, None] * longest + torch.arange(self[rows].tokens.shape[1])


class SpanText(CorruptedTextModule):
    """Disjoint windows of a text, with spans that are missing: T5's pre-training.

    Args:
        text: the text; its windows are the rows. In evaluation they do not overlap, whatever its stride.
        noise: share of a window's tokens that are missing, in (0, 1).
        mean_span: mean number of tokens of a span.
        closing: whether a sentinel closes the target, as in T5's paper, and spans may be anywhere. Otherwise a window
            begins with text and ends with a span, as in the seqio library.
    """

    domain: SpanDomain

    def __init__(
        self,
        text: TextDataModule,
        noise: float = 0.15,
        mean_span: float = 3.0,
        closing: bool = True,
    ) -> None:
        super().__init__(text)
        require(0 < noise < 1, "data.noise", noise, "choose between 0 and 1")
        require(mean_span >= 1, "data.mean_span", mean_span, "choose at least 1")
        self.noise, self.mean_span, self.closing = noise, mean_span, closing

    @property
    def _counts(self) -> tuple[int, int]:
        """Missing tokens and spans of a whole window."""
        return span_counts(self.text.length, self.noise, self.mean_span, self.closing)

    def domain_of(self, tokenizer: Tokenizer) -> SpanDomain:
        _, spans = self._counts
        return SpanDomain(tokenizer, max(spans + self.closing, 2), self.closing)

    @property
    def spec(self) -> Spec:
        missing, spans = self._counts
        source = self.domain.source_spec(self.text.length - missing + spans)
        # Shorter windows, at the ends of documents, have neither longer sources nor longer targets.
        return replace(self.domain.spec(missing + spans + self.closing + 1), context=source)

    @property
    def protocol(self) -> str:
        given = f"{self.noise:.0%} missing in spans of {self.mean_span:g}"
        return f"windows of {self.text.length}, {given}"

    def build(self, split: Split) -> SpanRows:
        training = split == "train"
        windows = self.text.dataset(split)
        if not training:
            given = self.text.corpus(split), self.text.domain, self.text.length, self.text.length
            windows = TextWindows(*given, separate_documents=self.text.separate_documents)
        return SpanRows(windows, self, training)  # type: ignore[arg-type]

    def corrupt(self, batch: Batch, noise: RowNoise, split: TextDataset, rows: Rows) -> Batch:
        length = self.text.length
        numbers = torch.stack([noise.uniform(i, length + 1) for i in range(2)], dim=1)
        text = inside(batch.scored) & batch.scored
        pairs = [
            self.domain.corrupted(tokens[kept], self._missing(given, int(kept.sum())))
            for tokens, kept, given in zip(batch.tokens, text, numbers, strict=True)
        ]
        sources, targets = ([*side] for side in zip(*pairs, strict=True))
        end = self.domain.eos_id
        tokens = pad_sequence(targets, True, end)
        sizes = torch.tensor([len(target) for target in targets])
        scored = torch.arange(tokens.shape[1]) < sizes[:, None]
        return Batch(tokens, scored, self.domain.units(tokens), self.domain.contexts(sources))

    def _missing(self, numbers: Tensor, length: int) -> Tensor:
        return span_mask(numbers, length, self.noise, self.mean_span, self.closing)
