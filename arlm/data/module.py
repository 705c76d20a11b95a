"""TokenDataModule: the base class of every data set."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from arlm.construction import Captured
from arlm.core import Spec
from arlm.data.dataset import TokenDataset
from arlm.data.folders import Split
from arlm.data.order import BatchOrder, ResumableLoader
from arlm.domains import Domain
from arlm.errors import UserError, require
from arlm.sampling.noise import row_seeds

COUNTED_TOKENS = 2**22  # tokens in a batch of a single pass, about
PRECEDING = 64  # an n-gram has at most 62 tokens


class TokenDataModule(Captured, LightningDataModule, ABC):
    """A data set: a domain, a spec and three splits.

    A subclass sets `self.domain` in its constructor (the vocabulary must be known before the network is
    built), and writes `spec` and `build`. Constructor arguments are plain values, so that a checkpoint can
    describe them.

    Args:
        batch_size: rows in a batch.
        seed: of shuffling, window offsets and binarisation.
        num_workers: processes that prepare batches; 0 is fastest for tensors in memory.
    """

    domain: Domain
    predict_rows = 16

    def __init__(self, batch_size: int, seed: int = 0, num_workers: int = 0) -> None:
        super().__init__()
        require(batch_size >= 1, "data.batch_size", batch_size, "choose at least 1")
        fits = 0 <= num_workers <= 256
        require(fits, "data.num_workers", num_workers, "choose 0 to 256")
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self._datasets: dict[Split, TokenDataset] = {}

    @property
    @abstractmethod
    def spec(self) -> Spec:
        """Everything that a network may know of the data."""

    @abstractmethod
    def build(self, split: Split) -> TokenDataset:
        """Read one split. Called once for each."""

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Origin of the data, recorded with each run: versions, checksums, protocol."""
        return {}

    def recorded(self, content: Callable[[Split], bytes]) -> dict[str, str]:
        """What `provenance` says of data whose splits are read whole: name, protocol, SHA-256 of each split's `content`."""
        splits: list[Split] = ["train", "val", "test"]
        sums = {f"{split}_sha256": hashlib.sha256(content(split)).hexdigest() for split in splits}
        return {"name": type(self).__name__, "protocol": self.protocol} | sums

    def words(self, split: Split) -> int:
        """Words in a split, for word perplexity; 0 for data without words."""
        return 0

    @property
    def protocol(self) -> str:
        """How evaluation gives context to a scored token, for reports."""
        return "whole rows"

    @property
    def processes(self) -> tuple[int, int]:
        """Rank of this process, and the number of processes."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def dataset(self, split: Split) -> TokenDataset:
        """One split, built when first used."""
        if split not in self._datasets:
            built: Any = self.build(split)
            if not isinstance(built, TokenDataset):
                raise UserError(
                    f"data: build() of {type(self).__name__} returned a {type(built).__name__}; return a "
                    "TokenDataset, such as arlm.data.dataset.FixedRows(tokens, self.domain)"
                )
            self._datasets[split] = built
        return self._datasets[split]

    def loader(self, split: Split) -> ResumableLoader:
        """This process's batches of one split."""
        return ResumableLoader(self.dataset(split), self.order(split), self.num_workers)

    def order(self, split: Split) -> BatchOrder:
        """Rows of each of this process's batches of one split."""
        rank, world_size = self.processes
        dataset, training = self.dataset(split), split == "train"
        if training and self.batch_size * world_size > len(dataset):
            raise UserError(
                f"data.batch_size: {self.batch_size * world_size} is larger than the training split "
                f"of {len(dataset)} rows; choose at most {len(dataset) // world_size}"
            )
        return BatchOrder(
            *(len(dataset), self.batch_size, training, self.seed, rank, world_size),
            streams=dataset.streams,
        )

    def single_pass(self) -> ResumableLoader:
        """The training split for objectives that count: every token is scored once, in the order of the data.

        A token's row has at least `PRECEDING` tokens before it, or all that there are.
        """
        return self.in_order(self.dataset("train"), self.spec.length)

    def in_order(self, dataset: TokenDataset, length: int) -> ResumableLoader:
        """All rows, of up to `length` tokens, once and in order, in large batches."""
        rows = max(1, COUNTED_TOKENS // length)
        order = BatchOrder(len(dataset), rows, training=False)
        return ResumableLoader(dataset, order, self.num_workers)

    def train_dataloader(self) -> ResumableLoader:
        module: Any = getattr(self.trainer, "lightning_module", None)
        objective = getattr(module, "objective", None)
        return self.loader("train") if getattr(objective, "optimizes", True) else self.single_pass()

    def val_dataloader(self) -> ResumableLoader:
        return self.loader("val")

    def test_dataloader(self) -> ResumableLoader:
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Seeds of the rows that `predict` samples."""
        seeds: Any = torch.tensor(row_seeds(self.seed, self.predict_rows))
        return DataLoader(seeds, batch_size=min(self.batch_size, self.predict_rows))
