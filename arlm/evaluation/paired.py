"""The difference of two networks on the same tokens, with a bootstrap interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BLOCK = 256  # neighbouring tokens that are resampled together, since they are not independent
DRAWS = 4000


class Interval(NamedTuple):
    """A mean and the middle 95 % of its bootstrap distribution."""

    mean: float
    low: float
    high: float


def paired_difference(a: Tensor, b: Tensor, seed: int = 0) -> Interval:
    """Mean of a - b per token, with an interval from a bootstrap over blocks of neighbouring tokens.

    Args:
        a, b: (N,) float64, nats of the same tokens under two networks.
        seed: of the resampling.

    References:
        | The Stationary Bootstrap (Politis, Romano, 1994) and block bootstraps before it
        | https://doi.org/10.1080/01621459.1994.10476870
    """
    difference = (a - b).numpy()
    edges = np.arange(0, len(difference), min(BLOCK, max(1, len(difference) // 20)))
    sums = np.add.reduceat(difference, edges)
    sizes = np.diff([*edges, len(difference)])
    random = np.random.default_rng(seed)
    times = random.multinomial(len(edges), np.full(len(edges), 1 / len(edges)), size=DRAWS)
    means = (times @ sums) / (times @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(difference.mean()), float(low), float(high))


def by_bins(values: Tensor, keys: Tensor, edges: list[int]) -> list[tuple[int, float, float]]:
    """Mean of `values` where edge <= key < next edge: (edge, mean, share of all), empty bins left out."""
    which = torch.bucketize(keys, torch.tensor(edges), right=True) - 1
    found = []
    for index, edge in enumerate(edges):
        inside = which == index
        if bool(inside.any()):
            share = float(inside.double().mean())
            found.append((edge, float(values[inside].mean()), share))
    return found
