"""TokenDataModule: the contract of a data set."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from arlm.core import Spec
from arlm.data.dataset import Rows, TokenDataset, generator
from arlm.domains import Domain
from arlm.errors import UserError, require
from arlm.sampling.noise import row_seeds

Split = Literal["train", "val", "test"]


def data_folder(data_dir: str | None) -> Path:
    """Where data sets lie: the argument, else ARLM_DATA_DIR, else the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "arlm"
    return Path(data_dir or os.environ.get("ARLM_DATA_DIR") or cache).expanduser()


def split_of(name: str, parts: int) -> Split:
    """The split of a document or file by a hash of its name: one in `parts` held out for each of two."""
    bucket = int(hashlib.sha256(name.encode()).hexdigest(), 16) % parts
    return "test" if bucket == 0 else "val" if bucket == 1 else "train"


class BatchOrder(Sampler[Rows]):
    """Which rows make which batch: a pure function of (seed, epoch), shared out over processes.

    In training, rows are shuffled and a last short batch is left out; in evaluation, every row comes
    once, in order. Lanes always come in order, each process with its own.

    Args:
        rows: in the data set.
        batch_size: rows in a batch.
        training: shuffle and drop the last short batch.
        seed: of the shuffling.
        rank, world_size: this process and how many there are.
        lanes: of a data set whose rows go on from batch to batch; then there are `batch_size` of them
            for each process.
    """

    def __init__(
        self,
        rows: int,
        batch_size: int,
        training: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        lanes: int | None = None,
    ) -> None:
        self.rows, self.batch_size, self.training, self.seed = rows, batch_size, training, seed
        self.lanes = lanes
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.skip = 0  # batches to leave out once, after a resume

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.lanes:
            return self.rows // self.lanes
        step = self.batch_size * self.world_size
        if self.training:
            return self.rows // step
        return len(range(self.rank * self.batch_size, self.rows, step))

    def __iter__(self) -> Iterator[Rows]:
        skip, self.skip = self.skip, 0
        if self.lanes:
            mine = torch.arange(self.lanes).tensor_split(self.world_size)[self.rank]
            for batch in range(skip, len(self)):
                yield Rows(self.epoch, batch * self.lanes + mine)
            return
        order = torch.arange(self.rows)
        if self.training:
            order = torch.randperm(self.rows, generator=generator(self.seed, self.epoch))
        batches = order.split(self.batch_size)[self.rank :: self.world_size][: len(self)]
        for chosen in batches[skip:]:
            yield Rows(self.epoch, chosen)


class ResumableLoader(DataLoader):
    """A loader of whole batches that continues in the middle of an epoch.

    Lightning saves `state_dict()` in the checkpoint and gives it back on resume.
    """

    def __init__(self, dataset: TokenDataset, order: BatchOrder, num_workers: int = 0) -> None:
        super().__init__(dataset, batch_size=None, sampler=order, num_workers=num_workers)
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
        """Start the next epoch after those; a finished one starts anew."""
        self.order.skip = state["yielded"] % max(1, len(self.order))


class TokenDataModule(LightningDataModule, ABC):
    """A data set: a domain, a spec and three splits.

    A subclass sets `self.domain` in its constructor (the vocabulary must be known before the network is
    built), keeps its arguments as attributes of the same names, and writes `spec` and `build`.

    Args:
        batch_size: rows in a batch.
        seed: of shuffling and of random windows or binarisation.
        num_workers: processes that prepare batches; 0 is fastest for tensors in memory.
    """

    domain: Domain
    predict_rows = 16

    def __init__(self, batch_size: int, seed: int = 0, num_workers: int = 0) -> None:
        super().__init__()
        require(batch_size >= 1, "data.batch_size", batch_size, "choose at least 1")
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self._datasets: dict[Split, TokenDataset] = {}

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """What a network may know of the data."""

    @abstractmethod
    def build(self, split: Split) -> TokenDataset:
        """Read one split. Called once for each."""

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Where the data came from, for the record: versions, checksums, protocol."""
        return {}

    def words(self, split: Split) -> int:
        """Words in a split, for word perplexity; 0 for data that has none."""
        return 0

    @property
    def protocol(self) -> str:
        """How much context a scored token has."""
        return "whole rows"

    @property
    def processes(self) -> tuple[int, int]:
        """This process, and how many there are."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def dataset(self, split: Split) -> TokenDataset:
        """One split, built at first use."""
        if split not in self._datasets:
            self._datasets[split] = self.build(split)
        return self._datasets[split]

    def loader(self, split: Split) -> ResumableLoader:
        """Batches of one split, this process's share of them."""
        return ResumableLoader(self.dataset(split), self.order(split), self.num_workers)

    def order(self, split: Split) -> BatchOrder:
        """Which rows of a split make which batch of this process."""
        rank, world_size = self.processes
        dataset, training = self.dataset(split), split == "train"
        if training and self.batch_size * world_size > len(dataset):
            raise UserError(
                f"data.batch_size: {self.batch_size * world_size} is larger than the training split "
                f"of {len(dataset)} rows; choose at most {len(dataset) // world_size}"
            )
        return BatchOrder(
            *(len(dataset), self.batch_size, training, self.seed, rank, world_size),
            lanes=dataset.lanes,
        )

    def train_dataloader(self) -> ResumableLoader:
        return self.loader("train")

    def val_dataloader(self) -> ResumableLoader:
        return self.loader("val")

    def test_dataloader(self) -> ResumableLoader:
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Seeds of the rows that `predict` samples."""
        seeds: Any = torch.tensor(row_seeds(self.seed, self.predict_rows))
        return DataLoader(seeds, batch_size=min(self.batch_size, self.predict_rows))
