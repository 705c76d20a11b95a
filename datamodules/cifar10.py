"""CIFAR-10: 32x32 RGB photographs of ten classes, read by torchvision.

References:
    | Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009)
    | https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import torch
import torchvision
from torch import Tensor

from arlm.data.dataset import FixedRows
from arlm.data.folders import Split, data_folder
from arlm.data.labels import LabelledImageModule
from arlm.domains.image import ImageDomain, check_levels
from arlm.errors import UserError


class CIFAR10(LabelledImageModule):
    """45,000 training, 5,000 validation (the last of the training files) and 10,000 test images.

    Args:
        levels: values per channel: 256, or a smaller power of two for coarser colours.
        labels: condition on the class, 0 to 9.
        label_dropout: share of the training labels that are replaced by a null class; see LabelledImageModule.
        data_dir: folder that contains cifar-10-batches-py; by default $ARLM_DATA_DIR or the user cache.
        batch_size, seed, num_workers: as for TokenDataModule.
    """

    def __init__(
        self,
        levels: int = 256,
        labels: bool = False,
        label_dropout: float = 0.0,
        data_dir: str | None = None,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(labels, label_dropout, batch_size, seed, num_workers)
        self.levels, self.data_dir = levels, data_dir
        self.domain = ImageDomain(check_levels(levels), height=32, width=32, channels=3)
        self._files: dict[bool, tuple[Tensor, Tensor]] = {}

    def prepare_data(self) -> None:
        for train in (True, False):
            self.read(train)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Images (N, 32, 32, 3) uint8 and labels (N,), downloaded if they are not in `data_dir`."""
        if train not in self._files:
            folder = data_folder(self.data_dir)
            present = (folder / torchvision.datasets.CIFAR10.base_folder).is_dir()
            try:
                data = torchvision.datasets.CIFAR10(folder, train=train, download=not present)
            except (OSError, RuntimeError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(
                    f"data.data_dir: '{folder}' holds no intact cifar-10-batches-py ({reason}); "
                    "unpack it there, or set ARLM_DATA_DIR to the folder that holds it"
                ) from None
            self._files[train] = torch.from_numpy(data.data), torch.tensor(data.targets)
        return self._files[train]

    def build(self, split: Split) -> FixedRows:
        images, targets = self.read(split != "test")
        if split != "test":
            held_out = len(images) // 10
            part = slice(-held_out) if split == "train" else slice(-held_out, None)
            images, targets = images[part], targets[part]
        tokens = self.domain.encode(images).to(torch.uint8)
        return FixedRows(tokens, self.domain, self.labels_of(split, targets))

    @cached_property
    def provenance(self) -> dict[str, str]:
        protocol = f"{self.levels} levels" + (", class label given" if self.labels else "")
        record = {"name": "CIFAR-10", "protocol": protocol}
        for part, train in (("train", True), ("test", False)):
            record[f"sha256 {part}"] = hashlib.sha256(
                self.read(train)[0].numpy().tobytes()
            ).hexdigest()
        return record
