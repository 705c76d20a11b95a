"""Networks on exactly the same tokens: nats of each token, and what their difference is worth."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from arlm.core import Autoregressor, Batch
from arlm.datasets import Rows, TokenDataset
from arlm.errors import UserError
from arlm.reader import Reader

BLOCK = 256  # tokens that are drawn together: neighbours are not independent
DRAWS = 4000


@dataclass(frozen=True)
class Scores:
    """What a network makes of each scored token of a split, in the order of the data; (N,) each."""

    places: Tensor  # in the split
    tokens: Tensor
    nats: Tensor  # float64, positive
    units: Tensor
    context: Tensor  # tokens that the network had read before
    seconds: float

    @property
    def likelihood(self) -> dict[str, float]:
        """nll, ppl, and bits per unit as "bits"."""
        nats, nll = float(self.nats.sum()), float(self.nats.mean())
        bits = nats / math.log(2) / float(self.units.sum())
        return {"nll": nll, "ppl": math.exp(min(nll, 700)), "bits": bits}


def score(net: Autoregressor, dataset: TokenDataset, batches: Iterable[Rows]) -> Scores:
    """Score every token of a split once, as its way of reading says."""
    reader, parts, seconds = Reader(net), [], 0.0
    read: Tensor | None = None
    with torch.inference_mode():
        for rows in batches:
            batch = dataset[rows]
            began = time.perf_counter()
            nats = -reader(batch).double()
            seconds += time.perf_counter() - began
            read = _read_before(batch, read)
            context = read[:, None] + torch.arange(batch.tokens.shape[1])
            read = read + batch.tokens.shape[1]
            mine = batch.scored
            every = dataset.places(rows), batch.tokens, nats, batch.units, context
            parts.append([part[mine] for part in every])
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    order = columns[0].argsort()
    places, tokens, all_nats, units, read_before = (column[order] for column in columns)
    return Scores(places, tokens, all_nats, units, read_before, seconds)


def _read_before(batch: Batch, read: Tensor | None) -> Tensor:
    """Tokens that each row's network has read before this batch, (B,)."""
    zeros = torch.zeros(len(batch.tokens), dtype=torch.long)
    return zeros if batch.fresh is None or read is None else read.where(~batch.fresh, zeros)


def check_same(scores: dict[str, Scores]) -> None:
    """Refuse networks that were not scored on the same tokens, saying how they differ."""
    (first, one), *others = scores.items()
    for name, other in others:
        here, there = len(one.tokens), len(other.tokens)
        told = f"runs: '{first}' and '{name}' cannot be compared: "
        mend = "; give runs of the same data, split and tokenizer, or one --data for all"
        if here != there:
            raise UserError(f"{told}they score {here} and {there} tokens{mend}")
        for what, a, b in (
            ("score token number", one.places, other.places),
            ("read the token", one.tokens, other.tokens),
        ):
            wrong = (a != b).nonzero()
            if len(wrong):
                at = int(wrong[0])
                raise UserError(f"{told}at {at} they {what} {int(a[at])} and {int(b[at])}{mend}")
        if not torch.equal(one.units, other.units):
            raise UserError(f"{told}a token is worth different amounts to them{mend}")


class Interval(NamedTuple):
    """A mean and the middle 95 % of its bootstrap distribution."""

    mean: float
    low: float
    high: float


def paired_difference(a: Tensor, b: Tensor, seed: int = 0) -> Interval:
    """Mean of a - b per token, for nats of the same tokens, by drawing blocks of neighbours again.

    Args:
        a, b: (N,) float64.
        seed: of the draws.

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
