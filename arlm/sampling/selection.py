"""Truncation of large vocabularies without a full sort.

A truncation keeps the likeliest tokens of a row, so it is a lowest logit that is kept, and a rule for the tokens that
equal it: of them, the first ones are kept. The lowest logit is found by quickselect: the values are divided into the
larger ones and the rest, and only the part with the border is divided further. For that and for comparisons NumPy is
used, whose loops are vectorised where those of torch are not. Devices other than the CPU, and vocabularies below
`LARGE`, sort all rows in one call; the results are the same.

References:
    | Algorithm 65: Find (Hoare, 1961) | https://doi.org/10.1145/366622.366647
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LARGE = 2048  # tokens from which on a loop over rows is faster than a sort of all of them
SORTED = 8192  # values that are sorted rather than divided further
FEW = 16  # values are selected one by one where fewer than one in so many is
SAMPLE = 32  # of so many values, one is looked at to find that out
ROUNDING = 1e-12  # of a sum of probabilities
RANGE, SMALLEST = 690.0, 1e-300  # exp(-690) is just above 1e-300
BLOCK = 64  # tokens of the vocabulary in a block of `largest`; only the best blocks are searched


def is_large(logits: Tensor) -> bool:
    """Whether rows (..., V) are handled one by one."""
    return logits.device.type == "cpu" and logits.shape[-1] >= LARGE


def as_array(logits: Tensor) -> np.ndarray:
    """Logits as an array, which has no bfloat16; half precision becomes float32, and the order remains."""
    return logits.detach().to(torch.promote_types(logits.dtype, torch.float32)).numpy()


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
    small = logits.device.type == "cpu" and not bool((highest - lowest < RANGE).all())
    return _exp(weights, small)


def exponentials_of_row(row: Tensor, highest: float, lowest: float, buffer: Tensor) -> Tensor:
    """`exponentials` of a row (V,) on the CPU with less overhead.

    Args:
        row: (V,) the logits.
        highest: the largest logit.
        lowest: the smallest logit.
        buffer: (V,) float64, is overwritten with the result; the page faults of new memory take time.
    """
    return _exp(buffer.copy_(row).sub_(highest), not highest - lowest < RANGE)


def _exp(weights: Tensor, small: bool) -> Tensor:
    """Overwrite weights by their exponentials; `small` if some may underflow."""
    if small:  # a vectorised exp takes up to 200 times as long where its result underflows
        return torch.threshold_(weights.clamp_(min=-RANGE - 10).exp_(), SMALLEST, 0.0)
    return weights.exp_()


def top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (..., V) with all but the `k` largest at -inf; of equal ones the first are kept."""
    if k >= logits.shape[-1]:
        return logits
    if not is_large(logits):
        best = logits.sort(dim=-1, descending=True, stable=True).indices[..., :k]
        return torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))
    rows = logits.reshape(-1, logits.shape[-1])
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    for i, row in enumerate(rows):
        values = as_array(row)
        lowest = np.partition(values, len(values) - k)[-k]
        out[i] = _cut(row, values, float(lowest), k)
    return out.view_as(logits)


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
    rows = logits.reshape(-1, logits.shape[-1])
    out = torch.empty_like(rows, memory_format=torch.contiguous_format)
    buffer, space = torch.empty(2, logits.shape[-1], dtype=torch.float64)
    for i, row in enumerate(rows):
        values = as_array(row)
        highest, lowest = float(values.max()), float(values.min())
        if math.isfinite(highest):
            weights = exponentials_of_row(row.detach(), highest, lowest, buffer)
            total = float(weights.sum())
            border, size = _nucleus(weights.numpy(), p, total, space.numpy())
            row = _cut(row, weights.numpy(), border, size)
        out[i] = row
    return out.view_as(logits)


def _nucleus(weights: np.ndarray, p: float, total: float, space: np.ndarray) -> tuple[float, int]:
    """The smallest weight of the nucleus, and the number of its tokens; `space` (V,) is overwritten."""
    goal, before, size = (p - ROUNDING) * total, 0.0, 0
    # Tokens below this weight add up to less than 1 - p, so they are not in the nucleus.
    least = (1 - p) * total / len(weights)
    sample = weights[::SAMPLE]
    if FEW * np.count_nonzero(sample >= least) < len(sample):
        part = weights[weights >= least]
    else:
        part = space
        part[:] = weights
    share = 8
    while len(part) > SORTED:
        count = len(part) // share
        part.partition(len(part) - count)
        mass = before + part[-count:].sum()
        if mass >= goal:
            part = part[-count:]
        else:
            before, size, part, share = mass, size + count, part[:-count], 2
    part.sort()
    largest_first = part[::-1]
    last = int(np.searchsorted(before + largest_first.cumsum(), goal))
    last = min(last, len(part) - 1)
    return float(largest_first[last]), size + last + 1


def _cut(row: Tensor, values: np.ndarray, lowest: float, size: int) -> Tensor:
    """Keep `size` logits of a row (V,): those whose value exceeds `lowest`, then the first of those that equal it.

    Args:
        row: (V,) the logits.
        values: (V,) numbers that do not fall where the logits rise.
        lowest: the smallest value that is kept.
        size: how many tokens are kept.
    """
    equal = np.flatnonzero(values == lowest)
    # Different logits may have the same value.
    kept = at_least(row, row.detach()[torch.from_numpy(equal)].min())
    if len(equal) > 1:
        first = size - np.count_nonzero(values > lowest)
        kept[torch.from_numpy(equal[first:])] = -torch.inf
    return kept


def at_least(row: Tensor, lowest: Tensor) -> Tensor:
    """A row (V,) with the logits below `lowest`, a tensor of one number of the same type, at -inf."""
    if row.dtype not in (torch.float32, torch.float64):
        return row.masked_fill(row < lowest, -torch.inf)
    # Unlike `masked_fill`, `threshold` is vectorised; it keeps what is above a number.
    below = torch.nextafter(lowest, torch.full_like(lowest, -torch.inf))
    return F.threshold(row, float(below), -torch.inf)


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
