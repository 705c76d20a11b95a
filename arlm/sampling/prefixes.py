"""The first tokens of an order, up to a sum: what typical and top-h keep, without sorting a large vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

COUNTS = (512, 8192)  # tokens that are tried before all are sorted


def first_tokens(keys: Tensor, weights: Tensor, goal: Tensor, reach: bool) -> Tensor:
    """Which tokens are the first by their keys, with weights that add up to a goal; (B, V) bool, at least one a row.

    Args:
        keys: (B, V), the smallest first; of equal ones the first index.
        weights: (B, V), not negative.
        goal: (B, 1).
        reach: whether tokens are taken until the sum reaches the goal, or while it does not exceed it.
    """
    for count in COUNTS:
        if count >= keys.shape[-1]:
            break
        order, tokens = keys.topk(count, largest=False, sorted=True)
        size = _size(weights.gather(-1, tokens), goal, reach)
        if not bool((size < count).all()):
            continue  # the border is further on
        last, following = order.gather(-1, size - 1), order.gather(-1, size)
        if bool((last < following).all()):
            return keys <= last
        break  # equal keys on both sides of the border
    tokens = keys.sort(dim=-1, stable=True).indices
    size = _size(weights.gather(-1, tokens), goal, reach)
    taken = torch.arange(keys.shape[-1], device=keys.device) < size
    return torch.zeros_like(taken).scatter(-1, tokens, taken)


def _size(weights: Tensor, goal: Tensor, reach: bool) -> Tensor:
    """How many of the weights (B, n), in their order, are taken; (B, 1)."""
    sums = weights.cumsum(-1)
    taken = sums - weights < goal if reach else sums <= goal
    return taken.sum(-1, keepdim=True).clamp(min=1)
