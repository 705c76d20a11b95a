"""Continuous batching: parallel streams through the text; each batch continues where the one before stopped.

    text, 2 streams of rows of 3 tokens

        batch      0         1         2
        stream 0   [a b c]   [d e f]   [g h .]      reads the first half; the network's state is carried
        stream 1   [i j k]   [l m n]   [o p .]      reads the second half

    with separate documents, each stream takes the next document when one ends

        stream 0   [a b c]   [d . .]   [i j k]      `starts_document` is true for the rows of a b c and i j k
        stream 1   [e f g]   [h . .]   [l m .]

For networks that carry their state (`arlm.layers.recurrent`): truncated back-propagation in training, and
evaluation without windows, which scores every token exactly once. `arlm.inference.scorer` carries the state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from arlm.core import Batch
from arlm.data.corpus import Corpus
from arlm.data.dataset import Rows, generator
from arlm.data.document_streams import DocumentStreams
from arlm.data.windows import TextDataset
from arlm.domains import Domain
from arlm.errors import UserError


class ContinuousText(TextDataset):
    """Parallel streams through the text, a row of each in every batch.

    Over the joined text, each stream reads one of several equal parts; in evaluation it starts `overlap`
    tokens before its part, for context, so that the scores are close to those of a single pass over the text;
    with one stream they are equal. In training, an epoch starts at a random offset and drops a remainder that
    fills no row.
    With separate documents, each stream takes the next remaining document (in training, in random order) and
    starts it without context.

    Args:
        corpus, domain, length, separate_documents: as for TextDataset.
        streams: rows of a batch.
        overlap: tokens that a stream reads before its part; None in training.
        seed: of the offsets and of the order of documents.
    """

    streams: int

    def __init__(
        self,
        corpus: Corpus,
        domain: Domain,
        length: int,
        streams: int,
        overlap: int | None = None,
        seed: int = 0,
        separate_documents: bool = False,
    ) -> None:
        super().__init__(corpus, domain, length, separate_documents)
        self.training, self.overlap, self.seed = overlap is None, overlap or 0, seed
        self.streams = streams
        if len(corpus) < streams * (length + 1) and not separate_documents:
            if self.training:
                raise UserError(
                    f"data.batch_size: {streams} streams of {length} tokens are more than the text's "
                    f"{len(corpus)}; choose fewer or shorter ones"
                )
            self.streams = max(1, len(corpus) // (length + 1))
        self._plans: dict[int, Any] = {}  # of the last epoch; workers can pickle it
        if separate_documents:
            rows = int((self.sizes + length - 1).div(length, rounding_mode="floor").sum())
            batches = max(1, rows // streams)
            self.batches = batches if self.training else self._plan(0).rows
        elif self.training:
            self.batches = (len(corpus) - length) // (streams * length)
        else:
            begin, end, _ = self._plan(0)
            self.batches = -(-int((end - begin).max()) // length)

    def __len__(self) -> int:
        return self.batches * self.streams

    def _parts(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """First token and end of each stream, and how many tokens it reads for context only."""
        size, streams = len(self.corpus), torch.arange(self.streams)
        if self.training:
            part = self.batches * self.length
            spare = size - part * self.streams
            offset = int(torch.randint(spare + 1, (), generator=generator(self.seed, epoch)))
            begin = offset + streams * part
            return begin, begin + part, torch.zeros_like(streams)
        part = -(-size // self.streams)
        overlap = (streams * part).clamp(max=self.overlap)
        return streams * part - overlap, ((streams + 1) * part).clamp(max=size), overlap

    def _documents(self, epoch: int) -> DocumentStreams:
        """The documents of each stream."""
        order = torch.arange(len(self.sizes))
        if self.training:
            order = torch.randperm(len(order), generator=generator(self.seed, epoch))
        return DocumentStreams(self.firsts, self.sizes, order, self.length, self.streams)

    def _plan(self, epoch: int) -> Any:
        """What `_documents` or `_parts` returns, kept for one epoch."""
        if epoch not in self._plans:
            plan = self._documents if self.separate_documents else self._parts
            self._plans = {epoch: plan(epoch)}
        return self._plans[epoch]

    def _chosen(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """First token, end, tokens read for context only, and whether a document starts; (B,) each."""
        batch, stream = rows.chosen // self.streams, rows.chosen % self.streams
        if self.separate_documents:
            starts, ends, starts_document = self._plan(rows.epoch)(batch, stream)
            return starts, ends, torch.zeros_like(starts), starts_document
        begin, ends, overlap = (part[stream] for part in self._plan(rows.epoch))
        done = batch * self.length
        return begin + done, ends, (overlap - done).clamp(0, self.length), batch == 0

    def __getitem__(self, rows: Rows) -> Batch:
        starts, ends, overlap, starts_document = self._chosen(rows)
        within = torch.arange(self.length)
        inside = starts[:, None] + within < ends[:, None]
        return self.batch(starts, within >= overlap[:, None], inside, starts_document)

    def positions(self, rows: Rows) -> Tensor:
        return self._chosen(rows)[0][:, None] + torch.arange(self.length)
