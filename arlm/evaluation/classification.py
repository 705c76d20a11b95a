"""Figures of classifiers and of predicted values, with 95 % intervals, and a test of the difference of two classifiers.

References:
    | Note on the sampling error of the difference between correlated proportions or percentages (McNemar, 1947)
    | https://doi.org/10.1007/BF02295996
    | Comparing two K-category assignments by a K-category correlation coefficient (Gorodkin, 2004): Matthews
    | https://doi.org/10.1016/j.compbiolchem.2004.09.006
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from arlm.evaluation.paired import Interval
from arlm.evaluation.proportion import proportion

DRAWS = 1000  # of a bootstrap
LARGEST = 200  # classes of which a bootstrap is drawn


class McNemar(NamedTuple):
    """The examples that exactly one of two classifiers gets right, and how likely so uneven a division is by chance."""

    only_first: int
    only_second: int
    p: float  # exact, two-sided


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> np.ndarray:
    """Counts (classes, classes) of classes in rows and predictions in columns, given both as (N,)."""
    codes = labels * classes + predicted
    return codes.bincount(minlength=classes**2).view(classes, classes).numpy()


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """The mean of F1 = 2 TP / (2 TP + FP + FN) over the classes that occur or are predicted, of confusions (..., V, V).

    It is that of scikit-learn without `labels`; of no examples, it is not a number.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    either = counts.sum(-1) + counts.sum(-2)
    there = (either > 0).sum(-1)
    total = (2 * right / np.maximum(either, 1)).sum(-1)
    return np.where(there > 0, total / np.maximum(there, 1), np.nan)


def matthews(counts: np.ndarray) -> np.ndarray:
    """Matthews' correlation of confusions (..., V, V), -1 to 1.

    It is not a number where all examples are in, or called, one class; scikit-learn has 0 there.
    """
    counts = counts.astype(np.float64)
    total = counts.sum((-1, -2))
    right = np.diagonal(counts, axis1=-2, axis2=-1).sum(-1)
    true, called = counts.sum(-1), counts.sum(-2)
    above = right * total - (true * called).sum(-1)
    spread = (total**2 - (true**2).sum(-1)) * (total**2 - (called**2).sum(-1))
    return np.where(spread > 0, above / np.sqrt(np.where(spread > 0, spread, 1)), np.nan)


def classification_figures(
    predicted: Tensor, labels: Tensor, classes: int, seed: int = 0
) -> dict[str, Interval]:
    """Accuracy (Wilson), and macro F1 and Matthews' correlation (bootstrap over the examples), with their intervals.

    Matthews' correlation is 0 where all examples are in, or called, one class, as in scikit-learn. Draws of the bootstrap
    that have no correlation for this reason do not count; it has no interval if no draw has one.

    Args:
        predicted, labels: classes of the examples, (N,) int64.
        classes: number of classes, V; above 200 only the accuracy has an interval.
        seed: of the bootstrap.
    """
    counts = confusion(predicted, labels, classes)
    total = int(counts.sum())
    unknown = Interval(math.nan, math.nan, math.nan)
    found = {"accuracy": Interval(*proportion(int(np.trace(counts)), total)) if total else unknown}
    drawn: np.ndarray | None = None
    if total > 0 and classes <= LARGEST:
        # Examples that are alike in class and prediction are drawn together: the cells of the confusion.
        there = counts.reshape(-1).nonzero()[0]
        random = np.random.default_rng(seed)
        cells = np.zeros((DRAWS, classes**2))
        cells[:, there] = random.multinomial(total, counts.reshape(-1)[there] / total, size=DRAWS)
        drawn = cells.reshape(DRAWS, classes, classes)
    for name, figure in (("f1", macro_f1), ("matthews", matthews)):
        value = float(np.nan_to_num(figure(counts))) if total else math.nan
        low, high = (math.nan, math.nan)
        if drawn is not None:
            values = figure(drawn)
            if not np.isnan(values).all():
                low, high = map(float, np.nanquantile(values, [0.025, 0.975]))
        found[name] = Interval(value, low, high)
    return found


def regression_figures(predicted: Tensor, values: Tensor, seed: int = 0) -> dict[str, Interval]:
    """Mean absolute error, Pearson's and Spearman's correlation, with intervals from a bootstrap over the examples.

    Args:
        predicted, values: of the examples, (N,) float64.
        seed: of the bootstrap.
    """
    ours, theirs = predicted.double().numpy(), values.double().numpy()
    random = np.random.default_rng(seed)
    samples = [random.integers(len(ours), size=len(ours)) for _ in range(DRAWS)]
    ranks = mean_ranks(ours), mean_ranks(theirs)
    # Ranks within a sample would take a sort of each; those of all examples differ little.
    measures: dict[str, tuple[Callable[..., np.ndarray], np.ndarray, np.ndarray]] = {
        "mean_absolute_error": (lambda a, b: np.abs(a - b).mean(-1), ours, theirs),
        "pearson": (pearson, ours, theirs),
        "spearman": (pearson, *ranks),
    }
    found = {}
    for name, (figure, a, b) in measures.items():
        drawn = [float(figure(a[sample], b[sample])) for sample in samples]
        low, high = np.quantile(drawn, [0.025, 0.975])
        found[name] = Interval(float(figure(a, b)), float(low), float(high))
    return found


def pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of (..., N); 0 where one of both is constant."""
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    spread = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.where(spread > 0, (a * b).sum(-1) / np.where(spread > 0, spread, 1), 0.0)


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of (N,) values from 1 on; equal values have the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return ((2 * last - counts + 1) / 2)[inverse]


def mcnemar(first: Tensor, second: Tensor) -> McNemar:
    """McNemar's exact test of two classifiers on the same examples.

    If both are equally good, each of the n examples that only one of them gets right is as likely that of the first as
    that of the second: p = 2 P(k or fewer of n), with k the smaller of the two counts, at most 1.

    Args:
        first, second: whether each is right, (N,) bool.
    """
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    n, k = only_first + only_second, min(only_first, only_second)
    terms = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
        for i in range(k + 1)
    ]
    tail = float(torch.tensor(terms, dtype=torch.float64).logsumexp(0).exp())
    return McNemar(only_first, only_second, min(1.0, 2 * tail))
