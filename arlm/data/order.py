"""Which rows make up each batch, and a loader that resumes in the middle of an epoch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from arlm.data.dataset import Rows, TokenDataset, generator
from arlm.data.permutation import Permutation

HELD = 2**22  # rows whose order is held in memory, 32 MiB; that of more rows is computed


class BatchOrder(Sampler[Rows]):
    """Rows of each batch: a pure function of (seed, epoch), divided among processes.

    In training, rows are shuffled and a short last batch is dropped; in evaluation, every row comes once, in
    order. Streams of continuous batching always come in order, and each process has its own.

    Args:
        rows: number of rows in the data set.
        batch_size: rows in a batch.
        training: shuffle, and drop a short last batch.
        seed: of the shuffling.
        rank, world_size: rank of this process, and the number of processes.
        streams: parallel streams of a data set with continuous batching, over all processes; None for
            independent rows.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        training: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        streams: int | None = None,
    ) -> None:
        self.rows, self.batch_size, self.training, self.seed = rows, batch_size, training, seed
        self.streams = streams
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.skip = 0  # batches to leave out once, after a resume

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.streams:
            return self.rows // self.streams
        step = self.batch_size * self.world_size
        if self.training:
            return self.rows // step
        return len(range(self.rank * self.batch_size, self.rows, step))

    def __iter__(self) -> Iterator[Rows]:
        skip, self.skip = self.skip, 0
        if self.streams:
            streams_of_process = torch.arange(self.streams).tensor_split(self.world_size)[self.rank]
            for batch in range(skip, len(self)):
                yield Rows(self.epoch, batch * self.streams + streams_of_process)
            return
        order = self._shuffled() if self.training else None
        step = self.batch_size * self.world_size
        for batch in range(skip, len(self)):
            first = batch * step + self.rank * self.batch_size
            chosen = torch.arange(first, min(first + self.batch_size, self.rows))
            yield Rows(self.epoch, chosen if order is None else order[chosen])

    def _shuffled(self) -> Tensor | Permutation:
        """A random order of all rows; of many, one that takes no memory."""
        random = generator(self.seed, self.epoch)
        if self.rows <= HELD:
            return torch.randperm(self.rows, generator=random)
        return Permutation(self.rows, random)


class LengthBuckets(BatchOrder):
    """Batches of rows of similar length: a pure function of (seed, epoch), divided among processes.

    In training, batches come in random order, and rows of equal lengths are shuffled among themselves; the
    number of batches is the same in every epoch. Each batch is divided among the processes, row by row, so
    that all of them get rows of similar length, and the rows of a step are those of one process with the
    budgets of all. In evaluation each process takes whole batches.

    Args:
        lengths: (N, 2), tokens of each pair's source and target.
        budget: largest number of tokens in a process's batch on either side, padding included; where the rows
            of a batch do not divide evenly, a process has one row more.
        training, seed, rank, world_size: as for BatchOrder.
    """

    def __init__(
        self, lengths: Tensor, budget: int, training: bool, seed: int, rank: int, world_size: int
    ) -> None:
        super().__init__(len(lengths), 1, training, seed, rank, world_size)
        self.lengths = lengths
        shares = world_size if training else 1
        self.order, self.sizes = buckets(lengths, budget * shares, shares)

    def __len__(self) -> int:
        if self.training:
            return len(self.sizes)
        return len(range(self.rank, len(self.sizes), self.world_size))

    def __iter__(self) -> Iterator[Rows]:
        skip, self.skip = self.skip, 0
        order, batch_order = self.order, torch.arange(len(self.sizes))
        if self.training:
            random = generator(self.seed, self.epoch)
            shuffled = torch.randperm(self.rows, generator=random)
            order = shuffled[by_length(self.lengths[shuffled])]
            batch_order = torch.randperm(len(batch_order), generator=random)
        batches = order.split(self.sizes)
        if self.training:
            for index in batch_order[skip:].tolist():
                yield Rows(self.epoch, batches[index][self.rank :: self.world_size])
            return
        for index in batch_order[self.rank :: self.world_size][skip:].tolist():
            yield Rows(self.epoch, batches[index])


def buckets(lengths: Tensor, budget: int, least: int = 1) -> tuple[Tensor, list[int]]:
    """Rows sorted by length, and how many of them make each batch.

    Args:
        lengths: (N, 2), tokens of each source and target.
        budget: largest number of tokens in a batch on either side, padding included; a longer row is a
            batch of its own.
        least: smallest number of rows in a batch, whatever the budget.

    Returns: order (N,), and sizes that sum to N.
    """
    order = by_length(lengths)
    sizes, longest = [0], 0
    for length in lengths[order].amax(1).tolist():
        longest = max(longest, length)
        if sizes[-1] >= least and (sizes[-1] + 1) * longest > budget:
            sizes.append(0)
            longest = length
        sizes[-1] += 1
    if sizes[-1] < least and len(sizes) > 1:
        *sizes, last = sizes
        sizes[-1] += last
    return order, sizes


def by_length(lengths: Tensor) -> Tensor:
    """Indices that sort rows by target length, then by source length; stable."""
    source, target = lengths.unbind(1)
    return (target * (int(source.max()) + 1) + source).argsort(stable=True)


def end_quietly(_: int) -> None:
    """Let a worker say nothing when the process that reads its batches is gone.

    A thread of Python's multiprocessing, which hands tensors over, shows its errors as tracebacks.
    """

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, ConnectionError | EOFError):
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = show


class ResumableLoader(DataLoader):
    """A loader of whole batches that continues in the middle of an epoch.

    Lightning saves `state_dict()` in the checkpoint and restores it on resume.
    """

    def __init__(self, dataset: TokenDataset, order: BatchOrder, num_workers: int = 0) -> None:
        # With a generator of its own: every pass over a loader draws a number, which would shift the dropout of a
        # run that is resumed between two epochs.
        own = torch.Generator()
        options: Any = {
            "batch_size": None,
            "sampler": order,
            "generator": own,
            "worker_init_fn": end_quietly,
        }
        super().__init__(dataset, num_workers=num_workers, **options)
        self.order = order
        self.yielded = 0

    def __iter__(self) -> Any:
        self.yielded = self.order.skip
        for batch in super().__iter__():
            self.yielded += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches yielded in this epoch."""
        return {"yielded": self.yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue the epoch after those batches; after a finished epoch, start the next one."""
        # A resumed run may begin with a validation, and save before it reads a batch.
        self.yielded = self.order.skip = state["yielded"] % max(1, len(self.order))
