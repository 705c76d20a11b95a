"""The randomness of a sample: one uniform number for each (row, position), fixed by the row's seed.

A sample therefore does not depend on the batch in which it is drawn, and all decoding strategies that score
the same prefix draw the same token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def row_seeds(seed: int, rows: int, first: int = 0) -> list[int]:
    """Seeds of `rows` rows of one run, from row `first`: row i is the same however many rows are drawn.

    Seeds and rows are mixed by SplitMix64 (Steele, Lea, Flood, 2014), so that runs of different seeds do not
    share rows, as they would with `seed + i`.
    """
    mask = (1 << 64) - 1

    def mix(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    return [mix(mix(seed & mask) ^ i) >> 1 for i in range(first, first + rows)]


def uniform_noise(seeds: Sequence[int], length: int) -> Tensor:
    """Uniform numbers in [0, 1), (rows, length) float64 on the CPU, whatever the network's device."""
    generator = torch.Generator()
    rows = [
        torch.rand(length, generator=generator.manual_seed(seed), dtype=torch.float64)
        for seed in seeds
    ]
    return torch.stack(rows)


def draw(logits: Tensor, noise: Tensor) -> Tensor:
    """Inverse CDF: the first token whose cumulative probability exceeds the noise.

    Args:
        logits: (B, V), -inf where a token may not be drawn.
        noise: (B,) in [0, 1), float64.

    Returns: tokens (B,) int64.
    """
    cumulative = logits.double().softmax(-1).cumsum(-1)
    # Slightly below the total, so that rounding cannot select a token of probability 0 at the end.
    threshold = noise[:, None] * cumulative[:, -1:] * (1 - 2**-50)
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(1)
