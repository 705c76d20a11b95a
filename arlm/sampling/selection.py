"""The likeliest tokens of a large vocabulary without a full sort.

A truncation keeps the likeliest tokens of a row, so it is a lowest logit that is kept, and a rule for the tokens that
equal it: of them, the first ones are kept. The lowest logit is found by quickselect: the values are divided into the
larger ones and the rest, and only the part with the border is divided further. Large rows are handled one by one; see
`arlm.sampling.rows`.

References:
    | Algorithm 65: Find (Hoare, 1961) | https://doi.org/10.1145/366622.366647
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from arlm.core import log_softmax
from arlm.sampling.rows import RANGE, SMALLEST, Row, as_array, by_rows, is_large

SORTED = 8192  # values that are sorted rather than divided further
FEW = 16  # values are selected one by one where fewer than one in so many is
SAMPLE = 32  # of so many values, one is looked at to find that out
ROUNDING = 1e-12  # of a sum of probabilities
BLOCK = 64  # tokens of the vocabulary in a block of `largest`; only the best blocks are searched


def argmax(logits: Tensor) -> Tensor:
    """The first index of the largest logit, (...) int64."""
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    # torch's own argmax is ten times slower on a CPU.
    return torch.from_numpy(np.asarray(as_array(logits).argmax(-1)))


def exponentials(logits: Tensor) -> Tensor:
    """exp(logits - largest) (..., V) in float64, 0 where the difference is below -690.

    A row that is -inf everywhere becomes nan.
    """
    # Separately, since `aminmax` is not vectorised.
    highest, lowest = logits.amax(-1, keepdim=True), logits.amin(-1, keepdim=True)
    weights = logits.to(torch.float64, copy=True).sub_(highest)
    if logits.device.type != "cpu" or bool((highest - lowest < RANGE).all()):
        return weights.exp_()
    # A vectorised exp takes up to 200 times as long where its result underflows.
    return torch.threshold_(weights.clamp_(min=-RANGE - 10).exp_(), SMALLEST, 0.0)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (..., V) with all but the `k` largest at -inf; of equal ones the first are kept."""
    if k >= logits.shape[-1]:
        return logits
    if not is_large(logits):
        best = logits.sort(dim=-1, descending=True, stable=True).indices[..., :k]
        return torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))

    def truncate(row: Row) -> Tensor:
        lowest = np.partition(row.values, len(row.values) - k)[-k]
        return row.first(row.values, float(lowest), k)

    return by_rows(logits, truncate)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (..., V) with all but the nucleus at -inf: the likeliest tokens until their probabilities add up to `p`.

    A token is kept if those before it, in the order of probability and then of the index, add up to less than
    p - 1e-12; the first is kept always. Probabilities are exponentials in float64 divided by their sum.
    """
    if not is_large(logits):
        weights = exponentials(logits.detach())
        ordered, order = weights.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        keep = before < (p - ROUNDING) * weights.sum(-1, keepdim=True)
        keep[..., 0] = True
        return logits.masked_fill(~torch.zeros_like(keep).scatter(-1, order, keep), -torch.inf)

    def truncate(row: Row) -> Tensor:
        weights, total = row.weights, row.total
        # Tokens below this weight add up to less than 1 - p, so they are not in the nucleus.
        least = (1 - p) * total / len(weights)
        goal = (p - ROUNDING) * total
        return row.first(weights, *_border(weights, np.asarray, goal, least, reach=True))

    return by_rows(logits, truncate)


def top_h(logits: Tensor, share: float) -> Tensor:
    """Logits (..., V) with all but the likeliest at -inf: as many as have a sum of -p log p of at most `share` of H.

    H is the sum over all tokens, the entropy; 1e-12 nats more are allowed for. One token is kept always.
    """
    if not is_large(logits):
        nats = log_softmax(logits.detach().double())
        parts = -nats.exp() * nats.clamp(min=-1000)  # 0 where the probability is 0
        order = logits.sort(dim=-1, descending=True, stable=True).indices
        goal = share * parts.sum(-1, keepdim=True) + ROUNDING
        keep = parts.gather(-1, order).cumsum(-1) <= goal
        keep[..., 0] = True
        return logits.masked_fill(~torch.zeros_like(keep).scatter(-1, order, keep), -torch.inf)

    def truncate(row: Row) -> Tensor:
        entropy, shift = row.entropy, row.highest + math.log(row.total)

        def parts(values: np.ndarray) -> np.ndarray:
            nats = np.maximum(values.astype(np.float64) - shift, -RANGE)
            return -nats * np.exp(nats)

        # -p log p is below x where p is below x / (2 log(1 / x)): such tokens add up to less than H - goal.
        goal = share * entropy + ROUNDING
        x = min((entropy - goal) / len(row.values), 0.1)
        least = shift + math.log(x) - math.log(-2 * math.log(x)) if x > 0 else -math.inf
        found = _border(row.values, parts, goal, least, reach=False, share=32)
        return row.first(row.values, *found)

    return by_rows(logits, truncate, entropies=True)


def _border(
    values: np.ndarray,
    parts: Callable[[np.ndarray], np.ndarray],
    goal: float,
    least: float,
    reach: bool,
    share: int = 8,
) -> tuple[float, int]:
    """The largest values whose parts add up to a goal: the smallest of them, and how many they are, at least one.

    Args:
        values: (V,), -inf or more.
        parts: of the sum, of some values; not negative.
        goal: what they add up to.
        least: smaller values are not among them.
        reach: whether values are taken until the sum reaches the goal, or while it does not exceed it.
        share: one in so many is looked at first.
    """
    before, size, lowest = 0.0, 0, 0.0
    sample = values[::SAMPLE]
    if FEW * np.count_nonzero(sample >= least) < len(sample):
        part = values[values >= least]
    else:
        count = 1 + len(sample) // share
        top = values[np.flatnonzero(values >= np.partition(sample, -count)[-count])]
        part = top if parts(top).sum() > goal else values.copy()
    while len(part) > SORTED:
        count = max(1, len(part) // share)
        part.partition(len(part) - count)
        mass = before + parts(part[-count:]).sum()
        if mass > goal or (reach and mass == goal):
            part = part[-count:]
        else:
            before, size, lowest, share = mass, size + count, part[-count], 2
            part = part[:-count]
    part.sort()
    largest_first = part[::-1]
    sums = before + parts(largest_first).cumsum()
    taken = int(sums.searchsorted(goal) + 1 if reach else sums.searchsorted(goal, "right"))
    taken = max(min(taken, len(part)), 1 - size)
    return float(largest_first[taken - 1] if taken else lowest), size + taken


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`values.topk(count)` of (B, V), in half the time on a CPU, since only the best blocks are searched.

    The `count` largest values are in the `count` blocks with the largest maxima, or in the remainder.
    """
    rows, size = values.shape
    blocks = size // BLOCK
    if blocks <= 2 * count:
        return values.topk(count)
    heads = values[:, : blocks * BLOCK].view(rows, blocks, BLOCK)
    _, best = heads.amax(-1).topk(count)
    within = heads.gather(1, best[..., None].expand(-1, -1, BLOCK)).flatten(1)
    found, index = torch.cat([within, values[:, blocks * BLOCK :]], 1).topk(count)
    chosen = best.gather(1, (index // BLOCK).clamp(max=count - 1)) * BLOCK + index % BLOCK
    return found, chosen.where(index < count * BLOCK, index + (blocks - count) * BLOCK)
