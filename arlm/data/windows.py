"""Windows: a long text as rows of fixed length that are independent of one another.

    text        a b c d e f g h i j k l m n
    training    [a b c d] [e f g h] [i j k l]              disjoint, from a random offset in each epoch
    evaluation  [a b c d]                                  all four are scored
                    [c d E F]                              stride 2: only E and F are scored,
                        [e f G H] ...                      with at least length - stride tokens of context

In evaluation every token is scored exactly once, as with continuous batching, so networks that use different
batching are compared on the same tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from arlm.core import Batch
from arlm.data.corpus import Corpus
from arlm.data.dataset import Rows, TokenDataset, generator
from arlm.domains import Domain
from arlm.errors import UserError


class TextDataset(TokenDataset):
    """Rows of `length` tokens from a corpus; the base of windows and continuous batching.

    Args:
        corpus: the text as tokens.
        domain: gives the units of the tokens.
        length: tokens of a row, T.
        separate_documents: whether rows are kept from holding tokens of two documents.
    """

    def __init__(
        self, corpus: Corpus, domain: Domain, length: int, separate_documents: bool
    ) -> None:
        if len(corpus) < 2 or (not separate_documents and len(corpus) < length):
            raise UserError(
                f"data.length: a split of the text has {len(corpus)} tokens, fewer than a window "
                f"of {length}; give more text or a smaller length"
            )
        self.corpus, self.domain, self.length = corpus, domain, length
        self.separate_documents = separate_documents
        first = torch.zeros(1).long()
        self.firsts = torch.from_numpy(corpus.documents) if separate_documents else first
        ends = torch.cat([self.firsts[1:], torch.tensor([len(corpus)])])
        self.firsts, ends = self.firsts[ends > self.firsts], ends[ends > self.firsts]
        self.sizes = ends - self.firsts  # of the documents, or of the whole text

    def batch(
        self,
        starts: Tensor,
        scored: Tensor,
        inside: Tensor,
        starts_document: Tensor | None = None,
    ) -> Batch:
        """Rows that start at tokens `starts` (B,); `inside` (B, T) is false beyond the end of the document."""
        last = len(self.corpus) - self.length
        # Rows that reach beyond the end of the text are read from an earlier start.
        shift = (starts - max(0, last)).clamp(min=0)
        width = min(self.length, len(self.corpus))
        tokens = self.corpus.read(starts - shift, width)
        if width < self.length or bool(shift.any()):
            within = torch.arange(self.length) + shift[:, None]
            tokens = tokens.gather(1, within.clamp(max=width - 1))
        if not bool(inside.all()):
            tokens = tokens.where(inside, 0)
        return Batch(tokens, scored & inside, self.domain.units(tokens), None, starts_document)


class TextWindows(TextDataset):
    """Windows of `length` tokens, each scored without earlier context.

    In training, an epoch cuts the text into disjoint windows from a random offset (with separate documents:
    from the first token of each document, the last window moved back). In evaluation, windows advance by
    `stride` and score only what no earlier window has scored.

    Args:
        corpus, domain, length, separate_documents: as for TextDataset.
        stride: None in training; 1 to `length` in evaluation.
        seed: of the random offsets.
    """

    def __init__(
        self,
        corpus: Corpus,
        domain: Domain,
        length: int,
        stride: int | None = None,
        seed: int = 0,
        separate_documents: bool = False,
    ) -> None:
        super().__init__(corpus, domain, length, separate_documents)
        self.stride, self.seed = stride, seed
        step = length if stride is None else stride
        counts = (self.sizes - length).clamp(min=0).add(step - 1) // step + 1
        if stride is None and not separate_documents:
            counts = (self.sizes // length - 1).clamp(min=1)
        self.until = counts.cumsum(0)  # windows up to the end of each document

    def __len__(self) -> int:
        return int(self.until[-1])

    def _starts(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """First token, end of the document, and number of tokens that were scored before; (B,) each."""
        document = torch.searchsorted(self.until, rows.chosen, right=True)
        first, size = self.firsts[document], self.sizes[document]
        index = rows.chosen - torch.where(document > 0, self.until[document - 1], 0)
        step = self.stride or self.length
        if self.stride is None and not self.separate_documents:
            start = self._offset(rows.epoch) + index * step
            return start, first + size, torch.zeros_like(start)
        last = (size - self.length).clamp(min=0)
        start = (index * step).minimum(last)
        done = torch.where(index > 0, ((index - 1) * step).minimum(last) + self.length, 0)
        overlap = (done - start).clamp(min=0) if self.stride else torch.zeros_like(start)
        return first + start, first + size, overlap

    def __getitem__(self, rows: Rows) -> Batch:
        starts, ends, overlap = self._starts(rows)
        within = torch.arange(self.length)
        return self.batch(
            starts, within >= overlap[:, None], starts[:, None] + within < ends[:, None]
        )

    def positions(self, rows: Rows) -> Tensor:
        return self._starts(rows)[0][:, None] + torch.arange(self.length)

    def _offset(self, epoch: int) -> int:
        spare = len(self.corpus) - len(self) * self.length
        return int(torch.randint(spare + 1, (), generator=generator(self.seed, epoch)))
