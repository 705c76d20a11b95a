"""The first tokens of an order, up to a sum: what typical keeps, without sorting a large vocabulary.

A few bisections of the keys find an interval with the border; only the tokens in it are sorted.
"""

from __future__ import annotations

import torch
from torch import Tensor

BISECTED = 2048  # tokens from which on bisection is faster than a sort
STEPS = 8  # bisections
MOST = 8192  # tokens in the interval; more are sorted with all others


def first_tokens(keys: Tensor, weights: Tensor, goal: Tensor) -> Tensor:
    """Which tokens are the first by their keys, with weights that add up to a goal; (B, V) bool, at least one a row.

    Args:
        keys: (B, V), the smallest first; of equal ones the first index.
        weights: (B, V), not negative; 0 where the key is inf.
        goal: (B, 1); tokens are taken until the sum reaches it.
    """
    if keys.shape[-1] >= BISECTED:
        highest = _last_key(keys, weights, goal)
        if highest is not None:
            return keys <= highest
    tokens = keys.sort(dim=-1, stable=True).indices
    size = _size(weights.gather(-1, tokens), goal).clamp(min=1)
    taken = torch.arange(keys.shape[-1], device=keys.device) < size
    return torch.zeros_like(taken).scatter(-1, tokens, taken)


def _last_key(keys: Tensor, weights: Tensor, goal: Tensor) -> Tensor | None:
    """The largest key that is taken, (B, 1); None where keys of both sides are equal, or too many are near."""
    least = keys.amin(-1, keepdim=True)
    low, high = least - 1, keys.where(keys < torch.inf, -torch.inf).amax(-1, keepdim=True)
    below, part = torch.empty_like(keys, dtype=torch.bool), torch.empty_like(weights)
    for _ in range(STEPS):  # all keys up to `low` are taken
        middle = (low + high) / 2
        # In memory that is there: new pages take longer than the sum.
        torch.mul(weights, torch.le(keys, middle, out=below), out=part)
        total = part.sum(-1, keepdim=True)
        taken = total < goal
        low, high = middle.where(taken, low), high.where(taken, middle)
    count = int(((keys > low) & (keys <= high)).sum(-1).max())
    if count > MOST or count >= keys.shape[-1]:
        return None
    base = weights.where(keys <= low, 0).sum(-1, keepdim=True)
    order, tokens = keys.where(keys > low, torch.inf).topk(count + 1, largest=False, sorted=True)
    size = _size(weights.gather(-1, tokens), goal - base)
    size = size.maximum((least > low).long()).clamp(max=count)  # one token at least
    last = order.gather(-1, (size - 1).clamp(min=0)).where(size > 0, low)
    return last if bool((last < order.gather(-1, size)).all()) else None


def _size(weights: Tensor, goal: Tensor) -> Tensor:
    """How many of the weights (B, n), in their order, are taken; (B, 1)."""
    return (weights.cumsum(-1) - weights < goal).sum(-1, keepdim=True)
