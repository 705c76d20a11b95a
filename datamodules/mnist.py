"""MNIST, FashionMNIST and KMNIST: 28x28 pixels, grey or binary, read by torchvision.

References:
    | Gradient-based learning applied to document recognition (LeCun et al., 1998)
    | http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf
    | Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017) | https://arxiv.org/abs/1708.07747
    | Deep Learning for Classical Japanese Literature (Clanuwat et al., 2018), KMNIST
    | https://arxiv.org/abs/1812.01718
    | On the Quantitative Analysis of Deep Belief Networks (Salakhutdinov, Murray, 2008), binarisation
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
import torchvision
from torch import Tensor

from arlm.core import Batch
from arlm.data.dataset import FixedRows, Rows, TokenDataset, generator, whole_rows
from arlm.data.folders import Split, data_folder
from arlm.data.labels import LabelledImageModule, Labels
from arlm.domains.image import ImageDomain, check_levels
from arlm.errors import UserError

Variant = Literal["MNIST", "FashionMNIST", "KMNIST"]
Binarize = Literal["dynamic", "fixed", "threshold"]
FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
IMAGES = {"train": 60_000, "test": 10_000}
MD5 = {  # of MNIST's idx files; the others are checked by size and header
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
}


class MNIST(LabelledImageModule):
    """50,000 training, 10,000 validation (the last of the training file) and 10,000 test images.

    With two levels, the binarisation protocol affects the likelihood more than the choice of network, so it
    is recorded in the provenance of every run:

    - dynamic: a pixel is 1 with probability grey / 255; training pixels are sampled again in every epoch,
      validation and test pixels once, with fixed seeds;
    - fixed: all pixels are sampled once, with fixed seeds; the published fixed draw is another one, see
      `datamodules.binary_images.BinarizedMNIST`;
    - threshold: a pixel is 1 from grey level 128 on (an easier task; not comparable with the others).

    Args:
        variant: which of the three sets.
        levels: values per pixel: 2, or a power of two up to 256 for grey.
        binarize: the protocol for two levels; not used for more.
        labels: condition on the class, 0 to 9.
        label_dropout: share of the training labels that are replaced by a null class; see LabelledImageModule.
        data_dir: folder that contains VARIANT/raw; by default $ARLM_DATA_DIR or the user cache.
        batch_size, seed, num_workers: as for TokenDataModule; the seed affects training only.
    """

    def __init__(
        self,
        variant: Variant = "MNIST",
        levels: int = 2,
        binarize: Binarize = "dynamic",
        labels: bool = False,
        label_dropout: float = 0.0,
        data_dir: str | None = None,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(labels, label_dropout, batch_size, seed, num_workers)
        self.variant, self.levels, self.binarize = variant, levels, binarize
        self.data_dir = data_dir
        self.domain = ImageDomain(check_levels(levels), height=28, width=28)
        self._files: dict[str, tuple[Tensor, Tensor]] = {}

    def prepare_data(self) -> None:
        for part in ("train", "test"):
            self.read(part)

    def read(self, part: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
        """Images (N, 28, 28, 1) uint8 and labels (N,), downloaded if they are not in `data_dir`.

        Read and verified once, then kept for the splits and the provenance.
        """
        if part in self._files:
            return self._files[part]
        folder = data_folder(self.data_dir)
        path = folder / self.variant / "raw" / FILES[part]
        kind = getattr(torchvision.datasets, self.variant)
        if not path.exists():
            try:
                kind(folder, train=part == "train", download=True)
            except (OSError, RuntimeError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(
                    f"data.data_dir: '{path}' is missing and the download failed ({reason}); "
                    "put the file there, or set ARLM_DATA_DIR to the folder that holds it"
                ) from None
        count = IMAGES[part]
        md5 = MD5.get(path.name) if self.variant == "MNIST" else None
        verify(path, [0x803, count, 28, 28], md5)
        verify(path.with_name(path.name.replace("images-idx3", "labels-idx1")), [0x801, count])
        try:
            data = kind(folder, train=part == "train", download=False)
        except (OSError, RuntimeError, ValueError):
            raise UserError(
                f"data.data_dir: the labels beside '{path}' are missing or broken; put them there"
            ) from None
        self._files[part] = data.data[..., None], data.targets
        return self._files[part]

    def build(self, split: Split) -> TokenDataset:
        images, targets = self.read("test" if split == "test" else "train")
        if split != "test":
            part = slice(50_000) if split == "train" else slice(50_000, None)
            images, targets = images[part], targets[part]
        labels = self.labels_of(split, targets)
        if self.levels > 2 or self.binarize == "threshold":
            return FixedRows(self.domain.encode(images).to(torch.uint8), self.domain, labels)
        if split == "train" and self.binarize == "dynamic":
            return DynamicRows(images.flatten(1), self.domain, self.seed, labels)
        split_seed = {"train": 0, "val": 1, "test": 2}[split]
        rows = binarized(images.flatten(1), generator(28, split_seed))
        return FixedRows(rows, self.domain, labels)

    @cached_property
    def provenance(self) -> dict[str, str]:
        protocol = f"2 levels, {self.binarize}" if self.levels == 2 else f"{self.levels} levels"
        protocol += ", class label given" if self.labels else ""
        record = {"name": self.variant, "protocol": protocol}
        for part in ("train", "test"):
            digest = hashlib.sha256(self.read(part)[0].numpy().tobytes()).hexdigest()
            record[f"sha256 {part}"] = digest
        return record


class DynamicRows(TokenDataset):
    """Images that are binarised again in every epoch.

    Args:
        images: (N, T) uint8 grey values.
        domain: an image domain of two levels.
        seed: of the binarisation.
        labels: give the context of a batch, if there is one.
    """

    def __init__(
        self, images: Tensor, domain: ImageDomain, seed: int, labels: Labels | None = None
    ) -> None:
        self.images, self.domain, self.seed, self.labels = images, domain, seed, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Rows) -> Batch:
        noise = generator(self.seed, rows.epoch, int(rows.chosen[0]))
        tokens = binarized(self.images[rows.chosen], noise)
        context = None if self.labels is None else self.labels(rows)
        return whole_rows(tokens, self.domain, context)


def binarized(grey: Tensor, noise: torch.Generator) -> Tensor:
    """Sample each pixel: 1 with probability grey / 255; (N, T) uint8."""
    return (torch.rand(grey.shape, generator=noise) * 255 < grey).to(torch.uint8)


def verify(path: Path, expected: Sequence[int], md5: str | None = None) -> None:
    """Refuse an idx file of bytes whose header, size or checksum is wrong.

    Args:
        path: of the file.
        expected: the header, big-endian numbers: 0x800 + axes, and the size of each axis.
        md5: of the file, if it is known.
    """
    try:
        with path.open("rb") as file:
            header = [int.from_bytes(file.read(4)) for _ in expected]
        size = path.stat().st_size
    except OSError as error:
        raise UserError(
            f"data.data_dir: cannot read '{path}' ({error.strerror}); put the file there"
        ) from None
    intact = header == list(expected) and size == 4 * len(expected) + math.prod(expected[1:])
    if intact and md5 is not None:
        intact = hashlib.md5(path.read_bytes()).hexdigest() == md5
    if not intact:
        raise UserError(
            f"data.data_dir: '{path}' is corrupt ({size} bytes); delete it and run again to "
            "download it, or put an intact copy there"
        )
