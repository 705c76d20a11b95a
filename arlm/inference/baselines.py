"""Baselines fitted to the training split of a data module, and the batches that they score."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from arlm.checkpoints import build
from arlm.core import Autoregressor, Batch
from arlm.data.continuous import ContinuousText
from arlm.data.corrupted import CorruptedRows
from arlm.data.dataset import Rows
from arlm.data.folders import Split
from arlm.data.module import TokenDataModule
from arlm.data.pairs import Pairs
from arlm.data.windows import TextDataset, TextWindows

WINDOWS = 256, 128  # length and stride of the windows that replace continuous streams
ORDER = 5  # tokens in an n-gram
TWO_SIDED = "two_sided_ngram.TwoSidedNGram"
CONDITIONAL = (TWO_SIDED,)  # networks of counts that read the context
# A unigram without counts.
UNIFORM = {"class_path": "arlm.models.unigram.Unigram", "init_args": {}}


def independent_batches(data: TokenDataModule, split: Split) -> Iterable[Batch]:
    """A split in batches of independent rows: windows in place of continuous streams."""
    dataset = data.dataset(split)
    if isinstance(dataset, ContinuousText):
        separate = dataset.separate_documents
        dataset = TextWindows(dataset.corpus, dataset.domain, *WINDOWS, separate_documents=separate)
    for chosen in torch.arange(len(dataset)).split(data.batch_size):
        yield dataset[Rows(0, chosen)]


def fitted(data: TokenDataModule, path: str, **arguments: float) -> Autoregressor:
    """A network of counts, fitted to the training split; it conditions on no context, except that of masked text.

    Args:
        data: of the counts.
        path: of the class in `arlm.models`.
        arguments: of the class.
    """
    train = data.dataset("train")
    if isinstance(train, Pairs):
        rows = torch.cat(list(train.targets))[None]
    elif isinstance(train, TextDataset):
        rows = train.corpus.whole()[None]
    elif isinstance(train, CorruptedRows):
        rows = train.rows.corpus.whole()[None]
    else:
        rows = train[Rows(0, torch.arange(len(train)))].tokens
    described = {"class_path": f"arlm.models.{path}", "init_args": arguments}
    spec = data.spec if path in CONDITIONAL else replace(data.spec, context=None)
    net: Any = build(described, Autoregressor, spec)  # type: ignore[type-abstract]
    net.count(rows)
    return net.eval()


def ngram(data: TokenDataModule, order: int = ORDER) -> Autoregressor:
    """The n-gram model of a text's training split; a lower order where the vocabulary is too large."""
    order = min(order, int(62 / math.log2(data.spec.vocab_size)))
    return fitted(data, "ngram.KneserNeyNGram", order=order)


def baselines(data: TokenDataModule) -> dict[str, Autoregressor]:
    """Simple networks for this kind of data, fitted to its training split.

    They condition on no context, except those of masked text, which read both neighbours of a masked token.
    """
    if isinstance(data.dataset("train"), CorruptedRows) and hasattr(data, "kept"):
        given = {"kept": float(data.kept)}
        return {
            "unigram": fitted(data, TWO_SIDED, order=1, **given),
            "two-sided trigram": fitted(data, TWO_SIDED, order=3, **given),
        }
    spec = replace(data.spec, context=None)
    uniform = build(UNIFORM, Autoregressor, spec).eval()  # type: ignore[type-abstract]
    if isinstance(data.dataset("train"), (Pairs, TextDataset)):
        longest: Any = ngram(data)
        simple = {"unigram": ngram(data, 1), f"{longest.order}-gram": longest}
    else:
        name = "pixel histogram" if len(spec.shape) > 1 else "histogram by position"
        simple = {name: fitted(data, "unigram.Histogram")}
    return {"uniform": uniform} | simple
