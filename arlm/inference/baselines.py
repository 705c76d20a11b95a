"""Baselines fitted to a data module's training split, and the batches that they score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arlm.core import Batch
from arlm.data.dataset import Rows
from arlm.data.pairs import Pairs
from arlm.data.windows import TextLanes, TextWindows
from arlm.evaluation.baselines import Histogram, NGram, Uniform

if TYPE_CHECKING:
    from arlm.data.module import Split, TokenDataModule

WINDOWS = 256, 128  # length and stride


def readable(data: TokenDataModule, split: Split) -> Iterable[Batch]:
    """The split in batches that a baseline can read: windows in place of lanes."""
    dataset = data.dataset(split)
    if isinstance(dataset, TextLanes):
        dataset = TextWindows(dataset.stream, dataset.domain, *WINDOWS, apart=dataset.apart)
    for chosen in torch.arange(len(dataset)).split(data.batch_size):
        yield dataset[Rows(0, chosen)]


def baselines(data: TokenDataModule) -> dict[str, Callable[[Tensor], Tensor]]:
    """Log-probabilities of the baselines for this kind of data, fitted to its training split."""
    spec = data.spec
    models: dict[str, Uniform | Histogram | NGram] = {"uniform": Uniform(spec)}
    train = data.dataset("train")
    if len(spec.shape) == 1:
        pairs = isinstance(train, Pairs)
        stream = torch.cat(list(train.targets)) if pairs else train.stream.whole()  # type: ignore[attr-defined]
        order = min(5, int(62 / math.log2(spec.vocab_size)))
        models["unigram"] = NGram(stream, 1, spec.vocab_size)
        models[f"{order}-gram"] = NGram(stream, order, spec.vocab_size)
    else:
        rows = train[Rows(0, torch.arange(len(train)))].tokens
        models["pixel histogram"] = Histogram(rows, spec.vocab_size)
    return {name: model.log_prob for name, model in models.items()}
