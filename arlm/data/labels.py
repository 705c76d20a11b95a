"""Images with class labels: the label as context, and label dropout for classifier-free guidance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from arlm.core import Spec
from arlm.data.dataset import Rows, generator
from arlm.data.folders import Split
from arlm.data.module import TokenDataModule
from arlm.domains import ImageDomain
from arlm.errors import UserError, require


@dataclass(frozen=True)
class Labels:
    """The class of each row, which is its context.

    Args:
        classes: (N,) integers.
        null_id: the null class; None if there is none.
        dropout: share of the labels that are replaced by the null class.
        seed: of the dropout.
    """

    classes: Tensor
    null_id: int | None = None
    dropout: float = 0.0
    seed: int = 0

    def __call__(self, rows: Rows) -> Tensor:
        """The context of a batch, (B, 1) int64: a pure function of (seed, epoch, rows)."""
        chosen = self.classes[rows.chosen].long()
        if self.null_id is not None and self.dropout:
            noise = generator(self.seed, rows.epoch, int(rows.chosen[0]), 1)
            dropped = torch.rand(len(chosen), generator=noise) < self.dropout
            chosen = chosen.masked_fill(dropped, self.null_id)
        return chosen[:, None]


class LabelledImageModule(TokenDataModule):
    """Images of one size, which may be conditioned on their class. A subclass sets `self.domain`.

    With label dropout the context has one class more, the null class, which stands for any class. Training
    batches replace labels by it at random, so that one network learns p(x) and p(x | c) for guidance.

    Args:
        labels: condition on the class.
        label_dropout: share of the training labels that are replaced by the null class, in [0, 1); drawn
            again in every epoch.
        batch_size, seed, num_workers: as for TokenDataModule.

    References:
        | Classifier-Free Diffusion Guidance (Ho, Salimans, 2022), section 3.2
        | https://arxiv.org/abs/2207.12598
    """

    domain: ImageDomain
    number_of_classes = 10

    def __init__(
        self, labels: bool, label_dropout: float, batch_size: int, seed: int, num_workers: int
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        require(0 <= label_dropout < 1, "data.label_dropout", label_dropout, "choose 0 to below 1")
        mend = "set data.labels true, since it replaces labels, or omit it"
        require(labels or not label_dropout, "data.label_dropout", label_dropout, mend)
        self.labels, self.label_dropout = labels, label_dropout

    @property
    def spec(self) -> Spec:
        if not self.labels:
            return self.domain.spec
        classes, null = self.number_of_classes, self.label_dropout > 0
        context = Spec(classes + null, (1,), kind="label", null_id=classes if null else None)
        return replace(self.domain.spec, context=context)

    def labels_of(self, split: Split, classes: Tensor) -> Labels | None:
        """The context of a split's rows, from their classes (N,); None without labels."""
        context = self.spec.context
        if context is not None:
            wrong = (classes < 0) | (classes >= self.number_of_classes)
            if bool(wrong.any()):
                raise UserError(
                    f"data.labels: a label of the {split} split is {int(classes[wrong][0])}, but the classes are "
                    f"0 to {self.number_of_classes - 1}; correct the file of labels"
                )
        dropout = self.label_dropout if split == "train" else 0.0
        return None if context is None else Labels(classes, context.null_id, dropout, self.seed)
