"""Baselines fitted to the training split of a data module, and the batches that they score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from arlm.core import Batch
from arlm.data.continuous import ContinuousText
from arlm.data.dataset import Rows
from arlm.data.folders import Split
from arlm.data.module import TokenDataModule
from arlm.data.pairs import Pairs
from arlm.data.windows import TextDataset, TextWindows
from arlm.evaluation.baselines import Histogram, NGram, Uniform

WINDOWS = 256, 128  # length and stride of the windows that replace continuous streams


def independent_batches(data: TokenDataModule, split: Split) -> Iterable[Batch]:
    """A split in batches of independent rows: windows in place of continuous streams."""
    dataset = data.dataset(split)
    if isinstance(dataset, ContinuousText):
        separate = dataset.separate_documents
        dataset = TextWindows(dataset.corpus, dataset.domain, *WINDOWS, separate_documents=separate)
    for chosen in torch.arange(len(dataset)).split(data.batch_size):
        yield dataset[Rows(0, chosen)]


def baselines(data: TokenDataModule) -> dict[str, Callable[[Tensor], Tensor]]:
    """The baselines for this kind of data, each a function from tokens (B, T) to log-probabilities (B, T)."""
    spec = data.spec
    models: dict[str, Uniform | Histogram | NGram] = {"uniform": Uniform(spec)}
    train = data.dataset("train")
    if isinstance(train, (Pairs, TextDataset)):
        pairs = isinstance(train, Pairs)
        tokens = torch.cat(list(train.targets)) if pairs else train.corpus.whole()  # type: ignore[union-attr]
        order = min(5, int(62 / math.log2(spec.vocab_size)))
        models["unigram"] = NGram(tokens, 1, spec.vocab_size)
        models[f"{order}-gram"] = NGram(tokens, order, spec.vocab_size)
    else:
        rows = train[Rows(0, torch.arange(len(train)))].tokens
        models["pixel histogram"] = Histogram(rows, spec.vocab_size)
    return {name: model.log_prob for name, model in models.items()}
