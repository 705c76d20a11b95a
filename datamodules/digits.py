"""Handwritten digits from scikit-learn: 1,797 images of 8x8 pixels and 17 levels, without any download.

References:
    | Combining Multiple Classifiers and Their Application to Handwritten Digit Recognition
    | (Kaynak, 1995), UCI "Optical Recognition of Handwritten Digits"
    | https://archive.ics.uci.edu/dataset/80
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import sklearn
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from arlm.core import Spec
from arlm.data.dataset import FixedRows, generator
from arlm.data.folders import Split
from arlm.data.module import TokenDataModule
from arlm.domains import ImageDomain


class Digits(TokenDataModule):
    """1,437 training, 180 validation and 180 test images, split by a fixed shuffle.

    Args:
        batch_size, seed, num_workers: as for TokenDataModule; the seed does not change the split.
    """

    domain: ImageDomain

    def __init__(self, batch_size: int = 32, seed: int = 0, num_workers: int = 0) -> None:
        super().__init__(batch_size, seed, num_workers)
        self.domain = ImageDomain(levels=17, height=8, width=8)

    @property
    def spec(self) -> Spec:
        return self.domain.spec

    def build(self, split: Split) -> FixedRows:
        tokens = images().flatten(1)
        order = torch.randperm(len(tokens), generator=generator(8))
        test, val, train = order.split([180, 180, len(tokens) - 360])
        rows = {"train": train, "val": val, "test": test}[split]
        return FixedRows(tokens[rows], self.domain)

    @cached_property
    def provenance(self) -> dict[str, str]:
        digest = hashlib.sha256(images().numpy().tobytes()).hexdigest()
        return {"name": "digits", "scikit-learn": sklearn.__version__, "sha256": digest}


def images() -> Tensor:
    """All images, (1797, 8, 8) uint8 with levels 0 to 16."""
    return torch.from_numpy(load_digits().images).to(torch.uint8)
