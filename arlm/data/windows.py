"""Ways to read a long text: windows that stand alone, or lanes that go on from batch to batch.

In evaluation every token is scored exactly once in each of them, so networks that read in different ways
are compared on the same tokens.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from arlm.core import Batch
from arlm.data.corpus import TokenStream
from arlm.data.dataset import Rows, TokenDataset, generator
from arlm.domains import Domain
from arlm.errors import UserError


class TextReading(TokenDataset):
    """What the ways have in common: rows of `length` tokens out of a stream.

    Args:
        stream: the text.
        domain: says what the tokens are worth.
        length: of a row.
        apart: no row holds tokens of two documents.
    """

    def __init__(self, stream: TokenStream, domain: Domain, length: int, apart: bool) -> None:
        if len(stream) < 2 or (not apart and len(stream) < length):
            raise UserError(
                f"data.length: a split of the text has {len(stream)} tokens, fewer than a window "
                f"of {length}; give more text or a smaller length"
            )
        self.stream, self.domain, self.length, self.apart = stream, domain, length, apart
        self.firsts = torch.from_numpy(stream.documents) if apart else torch.zeros(1).long()
        ends = torch.cat([self.firsts[1:], torch.tensor([len(stream)])])
        self.firsts, ends = self.firsts[ends > self.firsts], ends[ends > self.firsts]
        self.sizes = ends - self.firsts  # of the documents, or of the whole text

    def batch(
        self, starts: Tensor, scored: Tensor, inside: Tensor, fresh: Tensor | None = None
    ) -> Batch:
        """Rows from `starts` (B,), of which those `inside` (B, T) exist."""
        last = len(self.stream) - self.length
        shift = (starts - max(0, last)).clamp(min=0)  # rows at the end reach over it
        width = min(self.length, len(self.stream))
        tokens = self.stream.read(starts - shift, width)
        if width < self.length or bool(shift.any()):
            within = torch.arange(self.length) + shift[:, None]
            tokens = tokens.gather(1, within.clamp(max=width - 1))
        if not bool(inside.all()):
            tokens = tokens.where(inside, 0)
        return Batch(tokens, scored & inside, self.domain.units(tokens), None, fresh)


class TextWindows(TextReading):
    """Windows of `length` tokens, each of them read from nothing.

    In training, an epoch cuts the text into disjoint windows from a random offset (documents apart: from
    their beginning, the last one reaching back). In evaluation, windows advance by `stride` and score only
    what no window before has scored: every token exactly once, with at least `length - stride` tokens of
    context, but for the first window.

    Args:
        stream, domain, length, apart: as for TextReading.
        stride: None in training; 1 to `length` in evaluation.
        seed: of the offsets.
    """

    def __init__(
        self,
        stream: TokenStream,
        domain: Domain,
        length: int,
        stride: int | None = None,
        seed: int = 0,
        apart: bool = False,
    ) -> None:
        super().__init__(stream, domain, length, apart)
        self.stride, self.seed = stride, seed
        step = length if stride is None else stride
        counts = (self.sizes - length).clamp(min=0).add(step - 1) // step + 1
        if stride is None and not apart:
            counts = (self.sizes // length - 1).clamp(min=1)
        self.until = counts.cumsum(0)

    def __len__(self) -> int:
        return int(self.until[-1])

    def _starts(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """First token, the document's end, and how many of the row are scored already, (B,) each."""
        document = torch.searchsorted(self.until, rows.chosen, right=True)
        first, size = self.firsts[document], self.sizes[document]
        index = rows.chosen - torch.where(document > 0, self.until[document - 1], 0)
        step = self.stride or self.length
        if self.stride is None and not self.apart:
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

    def places(self, rows: Rows) -> Tensor:
        return self._starts(rows)[0][:, None] + torch.arange(self.length)

    def _offset(self, epoch: int) -> int:
        spare = len(self.stream) - len(self) * self.length
        return int(torch.randint(spare + 1, (), generator=generator(self.seed, epoch)))


class TextLanes(TextReading):
    """Lanes that read the text side by side, from batch to batch: batch i goes on where i - 1 stopped.

    Joined, the text is cut into equal parts, one a lane; in evaluation a lane begins `overlap` tokens
    before its part, for context, so that several lanes score nearly as one pass does, and one lane
    just so. In training an epoch begins at a random offset and leaves out a rest that fills no row.
    With documents apart, each lane takes the next document that is left (in training, in random order),
    and begins it from nothing.

    Args:
        stream, domain, length, apart: as for TextReading.
        lanes: rows of a batch.
        overlap: tokens that a lane reads before its part; None in training.
        seed: of offsets and order.
    """

    lanes: int

    def __init__(
        self,
        stream: TokenStream,
        domain: Domain,
        length: int,
        lanes: int,
        overlap: int | None = None,
        seed: int = 0,
        apart: bool = False,
    ) -> None:
        super().__init__(stream, domain, length, apart)
        self.training, self.overlap, self.seed = overlap is None, overlap or 0, seed
        self.lanes = lanes
        if len(stream) < lanes * (length + 1) and not apart:
            if self.training:
                raise UserError(
                    f"data.batch_size: {lanes} lanes of {length} tokens are more than the text's "
                    f"{len(stream)}; choose fewer or shorter ones"
                )
            self.lanes = max(1, len(stream) // (length + 1))
        self._table = lru_cache(2)(self._documents if apart else self._parts)
        if apart:
            rows = int((self.sizes + length - 1).div(length, rounding_mode="floor").sum())
            self.batches = max(1, rows // lanes) if self.training else len(self._table(0)[0])
        elif self.training:
            self.batches = (len(stream) - length) // (lanes * length)
        else:
            begin, end, _ = self._table(0)
            self.batches = -(-int((end - begin).max()) // length)

    def __len__(self) -> int:
        return self.batches * self.lanes

    def _parts(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """First token and end of each lane, and how many tokens it reads for context only."""
        size, lanes = len(self.stream), torch.arange(self.lanes)
        if self.training:
            part = self.batches * self.length
            spare = size - part * self.lanes
            offset = int(torch.randint(spare + 1, (), generator=generator(self.seed, epoch)))
            begin = offset + lanes * part
            return begin, begin + part, torch.zeros_like(lanes)
        part = -(-size // self.lanes)
        overlap = (lanes * part).clamp(max=self.overlap)
        return lanes * part - overlap, ((lanes + 1) * part).clamp(max=size), overlap

    def _documents(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """First token, document's end and whether it begins, for each batch and lane."""
        order = torch.arange(len(self.sizes))
        if self.training:
            order = torch.randperm(len(order), generator=generator(self.seed, epoch))
        lanes: list[list[tuple[int, int, bool]]] = [[] for _ in range(self.lanes)]
        for document in order.tolist():
            lane = min(lanes, key=len)
            first, size = int(self.firsts[document]), int(self.sizes[document])
            for start in range(0, size, self.length):
                lane.append((first + start, first + size, start == 0))
        batches = self.batches if self.training else max(map(len, lanes))
        nothing = [(0, 0, True)] * batches
        starts, ends, fresh = torch.tensor([(r + nothing)[:batches] for r in lanes]).permute(
            2, 1, 0
        )
        return starts, ends, fresh.bool()

    def _chosen(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """First token, end, tokens read for context only, and whether a row begins anew; (B,) each."""
        batch, lane = rows.chosen // self.lanes, rows.chosen % self.lanes
        if self.apart:
            starts, ends, fresh = (part[batch, lane] for part in self._table(rows.epoch))
            return starts, ends, torch.zeros_like(starts), fresh
        begin, ends, overlap = (part[lane] for part in self._table(rows.epoch))
        done = batch * self.length
        return begin + done, ends, (overlap - done).clamp(0, self.length), batch == 0

    def __getitem__(self, rows: Rows) -> Batch:
        starts, ends, overlap, fresh = self._chosen(rows)
        within = torch.arange(self.length)
        inside = starts[:, None] + within < ends[:, None]
        return self.batch(starts, within >= overlap[:, None], inside, fresh)

    def places(self, rows: Rows) -> Tensor:
        return self._chosen(rows)[0][:, None] + torch.arange(self.length)
