"""The draw: inverse CDF in float64, whose cost for a large vocabulary is that of the exponentials.

sums of blocks of 256 weights       |  s0  |  s1  |  s2  |  s3  | ...
their cumulative sum passes noise * total in block 2: only there are the weights added one by one
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from arlm.sampling.rows import Row, is_large

BLOCK = 256  # weights that are added together before the search
FEW = 8  # weights are computed for the kept tokens alone where they are fewer than one in so many
BELOW = (
    1 - 2.0**-50
)  # of the total, so that rounding cannot select a token of probability 0 at the end


def draw(logits: Tensor, noise: Tensor) -> Tensor:
    """Inverse CDF: the first token whose cumulative probability exceeds the noise.

    Args:
        logits: (B, V), -inf where a token may not be drawn.
        noise: (B,) in [0, 1), float64.

    Returns: tokens (B,) int64, never one of probability 0; V for a row without probabilities, where all logits are
        -inf, or one is nan or inf.
    """
    if is_large(logits):
        memory = torch.empty(1, logits.shape[-1], dtype=torch.float64)
        pairs = zip(logits.detach(), noise.tolist(), strict=True)
        found = [_draw(Row(row, memory), number) for row, number in pairs]
        return torch.tensor(found, dtype=torch.long)
    cumulative = logits.double().softmax(-1).cumsum(-1)
    threshold = noise[:, None] * cumulative[:, -1:] * BELOW
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(1)


def _draw(row: Row, noise: float) -> int:
    """The token of a row (V,)."""
    values = row.values
    if not row.is_finite:
        return len(values)
    possible = values > -math.inf if row.lowest == -math.inf else None
    if possible is not None and FEW * np.count_nonzero(possible) < len(possible):  # truncated
        tokens = np.flatnonzero(possible)
        weights = np.exp(values[tokens].astype(np.float64) - row.highest)
        cumulative = weights.cumsum()
        return int(tokens[cumulative.searchsorted(noise * cumulative[-1] * BELOW, "right")])
    weights = row.weights
    starts = np.arange(0, len(weights), BLOCK)
    cumulative = np.add.reduceat(weights, starts).cumsum()
    threshold = noise * cumulative[-1] * BELOW
    block = int(cumulative.searchsorted(threshold, "right"))
    before = cumulative[block - 1] if block else 0.0
    inside = weights[starts[block] : starts[block] + BLOCK]
    place = (before + inside.cumsum()).searchsorted(threshold, "right")
    # The sums of a block in two orders differ by rounding: then it is the last token with a probability.
    return int(starts[block] + min(place, inside.nonzero()[0][-1]))
