"""Masked rows of any text: the text is the row, and the text with masks in it is the context.

Which tokens are masked is drawn anew in each epoch (RoBERTa's dynamic masks), and fixed in evaluation.

References:
    | BERT: Pre-training of Deep Bidirectional Transformers (Devlin et al., 2019) | https://arxiv.org/abs/1810.04805
    | RoBERTa (Liu et al., 2019), dynamic masks, and that next-sentence prediction does not help
    | https://arxiv.org/abs/1907.11692
    | ALBERT (Lan et al., 2020), the order of two segments | https://arxiv.org/abs/1909.11942
    | Autoregressive Diffusion Models (Hoogeboom et al., 2022), the order-agnostic bound
    | https://arxiv.org/abs/2110.02037
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from arlm.core import Batch, Spec
from arlm.data.corrupted import CorruptedTextModule, RowNoise, inside
from arlm.data.dataset import Rows
from arlm.data.text_module import TextDataModule
from arlm.data.windows import TextDataset
from arlm.domains import MaskedDomain
from arlm.errors import UserError, require
from arlm.tokenizers import Tokenizer


class MaskedText(CorruptedTextModule):
    """Windows of a text with some tokens chosen, which are scored; at least one in each row.

    Args:
        text: the text; its windows are the rows.
        rate: share of a row's tokens that are chosen, in (0, 1].
        masked: share of the chosen tokens that are masked.
        random: share of the chosen tokens that are replaced by an ordinary token, drawn uniformly; the others stay.
        bound: choose a uniformly random number of tokens in place of `rate`, mask all of them, and weight their
            nats by T/t for t of T tokens. The mean is then the order-agnostic bound of the likelihood: the nats of the
            text under the network, averaged over all orders in which tokens can be predicted.
        pairs: "order": a row has two segments, swapped in half of the rows; "next": in half of the rows the second
            one is from another document, where there is one that the window does not touch. A label before them says which, and is predicted. "none": no segments.
    """

    domain: MaskedDomain

    def __init__(
        self,
        text: TextDataModule,
        rate: float = 0.15,
        masked: float = 0.8,
        random: float = 0.1,
        bound: bool = False,
        pairs: Literal["none", "order", "next"] = "none",
    ) -> None:
        super().__init__(text)
        require(0 < rate <= 1, "data.rate", rate, "choose above 0, up to 1")
        require(0 <= masked <= 1, "data.masked", masked, "choose 0 to 1")
        fits = 0 <= random <= 1 - masked + 1e-9
        require(fits, "data.random", random, f"choose 0 to {1 - masked:g}, what data.masked leaves")
        names = ("none", "order", "next")
        require(pairs in names, "data.pairs", pairs, "choose none, order or next")
        self.rate, self.masked, self.random, self.bound = rate, masked, random, bound
        self.pairs = pairs
        if pairs != "none":
            whole = not text.separate_documents
            mend = "omit it with data.pairs"
            require(whole, "data.text.separate_documents", True, mend)
            even = text.length % 2 == 0
            mend = "choose an even number for two segments"
            require(even, "data.text.length", text.length, mend)

    def domain_of(self, tokenizer: Tokenizer) -> MaskedDomain:
        return MaskedDomain(tokenizer, self.pairs != "none", self.bound)

    @property
    def kept(self) -> float:
        """Share of the chosen tokens without a mask that are the text's own."""
        return 1 - self.random / (1 - self.masked) if self.masked < 1 else 0.0

    @property
    def spec(self) -> Spec:
        return self.domain.spec(self.text.length + (2 if self.domain.pairs else 0))

    @property
    def protocol(self) -> str:
        how = "a random share" if self.bound else f"{self.rate:.0%}"
        return f"{self.text.protocol}, {how} of the tokens masked"

    def corrupt(self, batch: Batch, noise: RowNoise, split: TextDataset, rows: Rows) -> Batch:
        tokens, candidates = batch.tokens, batch.scored
        text = inside(candidates)
        labels = None
        if self.pairs != "none":
            tokens, candidates, labels = self._paired(batch, noise, split, rows)
            text = torch.ones_like(candidates)
        count = candidates.sum(1, keepdim=True)
        if self.bound:
            chosen_count = 1 + (noise.uniform(0, 1) * count).long()
        else:
            chosen_count = (count * self.rate).round().long().clamp(min=1)
        order = noise.uniform(1, tokens.shape[1]).masked_fill(~candidates, 2.0)
        chosen = order.argsort(1).argsort(1) < chosen_count  # (B, T)
        context = self._replaced(tokens, chosen, noise).masked_fill(~text, self.domain.pad_id)
        units, weights = self.domain.units(tokens), None
        if self.bound:
            # The units of the row, divided evenly: their weighted sum over the chosen tokens is exact.
            of_row = units.where(candidates, 0).sum(1, keepdim=True)
            units = (of_row / count).expand(units.shape)
            weights = (count / chosen_count).to(units.dtype).expand(units.shape)
        if labels is not None:
            chosen |= labels
            context = context.masked_fill(labels, self.domain.mask_id)
        return Batch(tokens, chosen, units, context, weights=weights)

    def _replaced(self, tokens: Tensor, chosen: Tensor, noise: RowNoise) -> Tensor:
        """Rows (B, T) whose chosen tokens are masked, replaced or kept."""
        if self.bound:
            return tokens.masked_fill(chosen, self.domain.mask_id)
        ordinary = self.domain.ordinary
        action = noise.uniform(2, tokens.shape[1])
        others = (noise.uniform(3, tokens.shape[1]) * len(ordinary)).long()
        mask = chosen & (action < self.masked)
        swap = chosen & ~mask & (action < self.masked + self.random)
        return torch.where(swap, ordinary[others], tokens).masked_fill(mask, self.domain.mask_id)

    def _paired(
        self, batch: Batch, noise: RowNoise, split: TextDataset, rows: Rows
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of a label, a segment, a separator and a segment; where tokens may be chosen; and where labels are."""
        (first, second), (may, may_too) = batch.tokens.chunk(2, 1), batch.scored.chunk(2, 1)
        wrong = noise.uniform(4, 1) < 0.5
        if self.pairs == "next":
            others, found = elsewhere(split, rows, noise, second.shape[1])
            wrong = wrong & found
            second = torch.where(wrong, others, second)
        else:
            first, second = torch.where(wrong, second, first), torch.where(wrong, first, second)
            may, may_too = torch.where(wrong, may_too, may), torch.where(wrong, may, may_too)
        label = torch.where(wrong, self.domain.labels[1], self.domain.labels[0])
        separator = torch.full_like(label, self.domain.separator)
        no = torch.zeros_like(wrong)
        tokens = torch.cat([label, first, separator, second], dim=1)
        candidates = torch.cat([no, may, no, may_too], dim=1)
        return tokens, candidates, (torch.arange(tokens.shape[1]) == 0).expand(tokens.shape)


def elsewhere(
    split: TextDataset, rows: Rows, noise: RowNoise, length: int
) -> tuple[Tensor, Tensor]:
    """Segments (B, length) without a token of the documents that these rows touch, each of them equally likely.

    Returns:
        The segments, and (B, 1) bool: false where a row has none, and the segment is any.

    Raises:
        UserError: the split has one document.
    """
    size = len(split.corpus)
    starts = torch.from_numpy(split.corpus.documents)
    ends = torch.cat([starts[1:], starts.new_tensor([size])])
    if int((ends > starts).sum()) < 2:
        raise UserError(
            "data.pairs: a split of the text has one document, so no segment is from another one; choose order"
        )
    touched = torch.searchsorted(starts, split.positions(rows)[:, [0, -1]], right=True) - 1
    first, end = starts[touched[:, 0]], ends[touched[:, 1]]
    before = (first - length + 1).clamp(min=0)  # starts of segments that end before these documents
    count = before + (size - length + 1 - end).clamp(min=0)
    start = (noise.uniform(5, 1)[:, 0] * count).long()
    start = torch.where(start >= before, start - before + end, start)
    found = count > 0
    return split.corpus.read(torch.where(found, start, 0), length), found[:, None]
