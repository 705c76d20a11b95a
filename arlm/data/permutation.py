"""A random order of many rows that is computed where it is read, instead of being held."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

ROUNDS = 6


class Permutation:
    """A pseudo-random permutation of `range(size)`, a pure function of its keys: `permutation[positions]`.

    A Feistel network in which each half is a digit to the base `side`, the smallest with side^2 >= size: each
    round adds to one digit a hash of the other, modulo `side`. That can be undone, so it permutes the numbers
    below side^2. Numbers of `size` and more, at most 2 sqrt(size) of them, are mapped again until they are less
    ("cycle walking"), which leaves a permutation of the others.

    Args:
        size: number of elements, at least 1.
        random: gives the keys; it is advanced.

    References:
        | Ciphers with Arbitrary Finite Domains (Black, Rogaway, 2002), sections 3 and 4
        | https://www.cs.ucdavis.edu/~rogaway/papers/subset.pdf
    """

    def __init__(self, size: int, random: torch.Generator) -> None:
        self.size, self.side = size, max(1, math.isqrt(size - 1) + 1)
        keys = torch.randint(2**63 - 1, (ROUNDS,), generator=random)
        self.keys = keys.numpy().astype(np.uint64)

    def __getitem__(self, positions: Tensor) -> Tensor:
        """Elements (...) at `positions` (...), both int64 and less than `size`."""
        found = self._mapped(positions.numpy().astype(np.uint64))
        while (beyond := found >= self.size).any():
            found[beyond] = self._mapped(found[beyond])
        return torch.from_numpy(found.astype(np.int64))

    def _mapped(self, numbers: np.ndarray) -> np.ndarray:
        side = np.uint64(self.side)
        left, right = np.divmod(numbers, side)
        for key in self.keys:
            left, right = right, (left + hashed(right ^ key) % side) % side
        return left * side + right


def hashed(numbers: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (Steele, Lea, Flood, 2014), of uint64."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
