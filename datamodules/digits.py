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

from arlm.data.dataset import FixedRows, generator
from arlm.data.folders import Split
from arlm.data.labels import LabelledImageModule
from arlm.domains import ImageDomain


class Digits(LabelledImageModule):
    """1,437 training, 180 validation and 180 test images, split by a fixed shuffle.

    Args:
        labels: condition on the class, 0 to 9.
        label_dropout: share of the training labels that are replaced by a null class; see LabelledImageModule.
        batch_size, seed, num_workers: as for TokenDataModule; the seed does not change the split.
    """

    def __init__(
        self,
        labels: bool = False,
        label_dropout: float = 0.0,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(labels, label_dropout, batch_size, seed, num_workers)
        self.domain = ImageDomain(levels=17, height=8, width=8)

    def build(self, split: Split) -> FixedRows:
        tokens = images().flatten(1)
        order = torch.randperm(len(tokens), generator=generator(8))
        test, val, train = order.split([180, 180, len(tokens) - 360])
        rows = {"train": train, "val": val, "test": test}[split]
        classes = torch.from_numpy(load_digits().target)[rows]
        return FixedRows(tokens[rows], self.domain, self.labels_of(split, classes))

    @cached_property
    def provenance(self) -> dict[str, str]:
        digest = hashlib.sha256(images().numpy().tobytes()).hexdigest()
        record = {"name": "digits", "scikit-learn": sklearn.__version__, "sha256": digest}
        return record | ({"protocol": "class label given"} if self.labels else {})


def images() -> Tensor:
    """All images, (1797, 8, 8) uint8 with levels 0 to 16."""
    return torch.from_numpy(load_digits().images).to(torch.uint8)
