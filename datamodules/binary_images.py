"""Images of two levels in text files, one image a line (`.amat`), and the published binarised MNIST.

    0 0 0 1 1 0 ...     height x width zeros and ones, in raster order; plain or gz

References:
    | On the Quantitative Analysis of Deep Belief Networks (Salakhutdinov, Murray, 2008), the draw
    | http://www.cs.toronto.edu/~rsalakhu/papers/dbn_ais.pdf
    | The Neural Autoregressive Distribution Estimator (Larochelle, Murray, 2011), the files
    | https://proceedings.mlr.press/v15/larochelle11a.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from arlm.core import Spec
from arlm.data.dataset import FixedRows, generator
from arlm.data.folders import Split, find_file
from arlm.data.module import TokenDataModule
from arlm.data.text_files import UNREADABLE, opened, unreadable
from arlm.domains import ImageDomain
from arlm.errors import UserError, require

SPLITS: tuple[Split, ...] = ("train", "val", "test")
LARGEST = 2**31  # bytes of a file, unpacked
NAME = "binarized_mnist/binarized_mnist_{}.amat"
PUBLISHED = {  # SHA-1 of the unpacked files
    "train": "cf70514ec5f481e54ad3eb0e6c03c83326ff96f8",
    "valid": "13418487742e6ea6d48db7b5187353a20b1b1f8c",
    "test": "ca70bd7775e182596dec148d4dc1bc6bd6c4c5f4",
}


class BinaryImages(TokenDataModule):
    """A set of binary images with a file for each split. Files may be sorted by class, so rows are shuffled.

    Args:
        train, val, test: the files, plain or gz; relative paths are looked up in the working folder, then in
            `data_dir`, and there with the ending .gz too.
        height, width: of the images.
        sha1: checksums of the three unpacked files; None does not check.
        data_dir: folder of data sets; by default $ARLM_DATA_DIR or the user cache.
        batch_size, seed, num_workers: as for TokenDataModule.
    """

    domain: ImageDomain
    draw = "2 levels"  # what a run records about the images

    def __init__(
        self,
        train: str,
        val: str,
        test: str,
        height: int = 28,
        width: int = 28,
        sha1: Sequence[str] | None = None,
        data_dir: str | None = None,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        count = 3 if sha1 is None else len(sha1)
        require(count == 3, "data.sha1", sha1, "give one of each file: train, val and test")
        self.files = dict(zip(SPLITS, (train, val, test), strict=True))
        self.sha1 = None if sha1 is None else dict(zip(SPLITS, sha1, strict=True))
        self.data_dir = data_dir
        self.domain = ImageDomain(levels=2, height=height, width=width)
        self._read: dict[Split, tuple[Tensor, str]] = {}

    @property
    def spec(self) -> Spec:
        return self.domain.spec

    def build(self, split: Split) -> FixedRows:
        images, _ = self.read(split)
        order = torch.randperm(len(images), generator=generator(28))
        return FixedRows(images[order], self.domain)

    def read(self, split: Split) -> tuple[Tensor, str]:
        """The images of a split (N, T) uint8 in the order of the file, and the file's SHA-1; read once."""
        if split not in self._read:
            path = self._path(split)
            content = unpacked(path)
            found = hashlib.sha1(content).hexdigest()
            expected = found if self.sha1 is None else self.sha1[split]
            if found != expected:
                raise UserError(
                    f"data.{split}: '{path}' has the SHA-1 {found} where the published file has {expected}; "
                    "put an intact copy there"
                )
            self._read[split] = parsed(content, self.spec.length, f"data.{split}: '{path}'"), found
        return self._read[split]

    def _path(self, split: Split) -> Path:
        name = self.files[split]
        try:
            return find_file(f"{name}.gz", self.data_dir, f"data.{split}")
        except UserError:
            return find_file(name, self.data_dir, f"data.{split}")

    @cached_property
    def provenance(self) -> dict[str, str]:
        checksums = {f"{split}_sha1": self.read(split)[1] for split in SPLITS}
        return {"name": type(self).__name__, "protocol": self.draw} | checksums


class BinarizedMNIST(BinaryImages):
    """MNIST in the fixed binary draw on which published figures stand: 50,000, 10,000 and 10,000 images of 28x28.

    The files are `binarized_mnist_train.amat`, `_valid` and `_test` (or .amat.gz) in `data_dir`/binarized_mnist.
    They differ from any other draw of the grey levels, such as `MNIST`'s; likelihoods on another draw are other
    figures.

    Args:
        data_dir, batch_size, seed, num_workers: as for BinaryImages.
    """

    draw = "2 levels, published draw"

    def __init__(
        self,
        data_dir: str | None = None,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        train, val, test = (NAME.format(part) for part in PUBLISHED)
        super().__init__(
            *(train, val, test, 28, 28, list(PUBLISHED.values())),
            data_dir=data_dir,
            batch_size=batch_size,
            seed=seed,
            num_workers=num_workers,
        )


def unpacked(path: Path) -> bytes:
    """The content of a file, plain or gz, of up to 2 GiB."""
    try:
        with opened(path) as file:
            content = file.read(LARGEST + 1)
    except UNREADABLE as error:
        raise unreadable("data", path, error) from None
    require(len(content) <= LARGEST, "data", str(path), "give files of at most 2 GiB")
    return content


def parsed(content: bytes, pixels: int, name: str) -> Tensor:
    """Lines of `pixels` zeros and ones -> (N, pixels) uint8; errors call the file `name`."""
    text = np.frombuffer(content, dtype=np.uint8)
    bits = (text | 1) == ord("1")
    legal = np.isin(np.arange(256), list(b"01 \t\r\n"))
    strange = ~legal[text]
    if strange.any():
        place = int(strange.argmax())
        line = 1 + int((text[:place] == ord("\n")).sum())
        raise UserError(
            f"{name}, line {line}: {chr(text[place])!r} is neither 0 nor 1; give images of two levels"
        )
    ends = np.append(np.flatnonzero(text == ord("\n")), len(text))
    starts = np.append(0, ends[:-1] + 1)
    starts = starts[starts < len(text)]
    counts = np.add.reduceat(bits, starts, dtype=np.int64) if len(starts) else np.zeros(1, int)
    wrong = (counts != pixels) & (counts != 0)  # the last line, and empty ones, have none
    if wrong.any() or not counts.any():
        line = int(wrong.argmax()) if wrong.any() else 0
        raise UserError(
            f"{name}, line {line + 1}: {counts[line]} pixels; give {pixels}, height times width"
        )
    return torch.from_numpy(text[bits] - ord("0")).view(-1, pixels)
