"""Which document each stream of continuous batching reads, in each of its rows.

    documents, in the order of reading: A has 3 rows, B has 1, C has 2; two streams

        row        0   1   2
        stream 0   A   A   A
        stream 1   B   C   C          the next document goes to the stream with the fewest rows so far

What is held are two numbers for each document, whatever its number of rows.
"""

from __future__ import annotations

from heapq import heapreplace

import torch
from torch import Tensor

AT_ONCE = 2**16  # documents that are Python numbers at a time


class DocumentStreams:
    """Documents (D,) divided among streams.

    Args:
        firsts: first token of each document, in the order of the data.
        sizes: its number of tokens, at least 1.
        order: numbers of the documents, in the order of reading.
        length: tokens of a row.
        streams: how many there are.
    """

    def __init__(
        self, firsts: Tensor, sizes: Tensor, order: Tensor, length: int, streams: int
    ) -> None:
        self.firsts, self.sizes, self.length = firsts, sizes, length
        heap = [(0, stream) for stream in range(streams)]  # rows so far; the least is first
        stream_of, begins = torch.empty_like(order), torch.empty_like(order)
        for part in range(0, len(order), AT_ONCE):
            chosen = slice(part, part + AT_ONCE)
            placed = []
            for rows in ((sizes[order[chosen]] + length - 1) // length).tolist():
                begin, stream = heap[0]
                heapreplace(heap, (begin + rows, stream))
                placed.append((stream, begin))
            stream_of[chosen], begins[chosen] = torch.tensor(placed).unbind(1)
        self.rows = max(heap)[0]  # of the longest stream
        self.keys, by_stream = (stream_of * (self.rows + 1) + begins).sort()
        self.documents = order[by_stream]

    def __call__(self, row: Tensor, stream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What rows (B,) of streams (B,) read.

        Returns: the first token, the end of the document, and whether it starts there, (B,) each; (0, 0, True)
            where a stream has ended.
        """
        key = stream * (self.rows + 1) + row
        index = torch.searchsorted(self.keys, key, right=True) - 1
        done = (key - self.keys[index]) * self.length  # tokens of the document in earlier rows
        document = self.documents[index]
        inside = done < self.sizes[document]
        first, end = self.firsts[document], self.firsts[document] + self.sizes[document]
        return (first + done).where(inside, 0), end.where(inside, 0), (done == 0) | ~inside
