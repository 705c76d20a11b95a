"""The randomness of a sample: a hash of (row seed, position) or (row seed, position, token), without a generator.

    key = mix(mix(seed) ^ position)      the uniform number of a draw: inverse CDF
    mix(key ^ token)                     the Gumbel noise of a token: argmax of logit + noise
    mix(key ^ -stream)                   a further number for the position, for processors that draw

A sample therefore does not depend on the batch in which it is drawn, and all decoding strategies that score the
same prefix draw the same token. Integers are hashed, so that the numbers are equal on every device. Two networks
that draw with the same Gumbel noise draw the same token far more often than with the same uniform number, which
is what speculative decoding needs.

References:
    | Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon et al., 2011), counter-based generators
    | https://doi.org/10.1145/2063384.2063405
    | Fast Splittable Pseudorandom Number Generators (Steele, Lea, Flood, 2014), SplitMix64
    | https://doi.org/10.1145/2714064.2660195
    | Coupling without Communication and Drafter-Invariant Speculative Decoding (Daliri et al., 2024), shared Gumbel
    | noise | https://arxiv.org/abs/2408.07978
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from arlm.sampling.inverse_cdf import draw
from arlm.sampling.rows import as_array, is_large
from arlm.sampling.selection import argmax

if TYPE_CHECKING:
    from arlm.sampling.processors import History

MANY = 2**14  # numbers in a part of a large tensor that is hashed on a CPU
FEW = 8  # noise and bits are computed for the kept tokens alone where they are fewer than one in so many


def signed(number: int) -> int:
    """The lowest 64 bits of an integer, as the int64 that has them."""
    return (number + 2**63) % 2**64 - 2**63


GAMMA, FIRST, SECOND = map(signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def mix(numbers: Tensor) -> Tensor:
    """SplitMix64 of int64 numbers, of any shape; arithmetic wraps around."""
    if numbers.device.type == "cpu" and numbers.numel() >= MANY:
        return _mix_in_cache(numbers)
    x = numbers + GAMMA
    # `>>` repeats the sign, which the masks remove.
    x.bitwise_xor_((x >> 30).bitwise_and_(2**34 - 1)).mul_(FIRST)
    x.bitwise_xor_((x >> 27).bitwise_and_(2**37 - 1)).mul_(SECOND)
    return x.bitwise_xor_((x >> 31).bitwise_and_(2**33 - 1))


def _mix_in_cache(numbers: Tensor) -> Tensor:
    """`mix` in parts that stay in the processor's cache, by NumPy, whose products of integers are vectorised."""
    found = torch.empty(numbers.shape, dtype=torch.int64)
    source = numbers.reshape(-1).numpy().view(np.uint64)
    target, space = found.view(-1).numpy().view(np.uint64), np.empty(MANY, np.uint64)
    for start in range(0, len(source), MANY):
        x = target[start : start + MANY]
        shifted = space[: len(x)]
        np.add(source[start : start + MANY], np.uint64(GAMMA % 2**64), out=x)
        for shift, factor in ((30, FIRST), (27, SECOND), (31, 1)):
            np.bitwise_xor(x, np.right_shift(x, np.uint64(shift), out=shifted), out=x)
            if factor != 1:
                np.multiply(x, np.uint64(factor % 2**64), out=x)
    return found


def uniform(bits: Tensor) -> Tensor:
    """Numbers in [0, 1), float64, of random int64 numbers: multiples of 2**-53."""
    if bits.device.type == "cpu" and bits.numel() >= MANY:  # torch converts integers one by one
        numbers = bits.numpy().view(np.uint64) >> np.uint64(11)
        return torch.from_numpy(numbers.astype(np.float64)).mul_(2**-53)
    return ((bits >> 11).bitwise_and_(2**53 - 1)).double().mul_(2**-53)


def gumbel(bits: Tensor) -> Tensor:
    """Standard Gumbel noise, float64, of random int64 numbers: -log(-log u) of u in (0, 1)."""
    return uniform(bits).add_(2**-54).log_().neg_().log_().neg_()


def position_keys(seeds: Tensor, positions: Tensor) -> Tensor:
    """The random bits of positions (B, n) int64 in rows of seeds (B,) int64: (B, n) int64."""
    return mix(mix(seeds)[:, None] ^ positions)


def row_seeds(seed: int, rows: int, first: int = 0) -> list[int]:
    """Seeds of `rows` rows of one run, from row `first`: row i is the same however many rows are drawn.

    Seeds and rows are mixed, so that runs of different seeds do not share rows, as they would with `seed + i`.
    """
    of_run = mix(torch.tensor([signed(seed)]))
    mixed = mix(of_run ^ torch.arange(first, first + rows))
    return ((mixed >> 1) & (2**63 - 1)).tolist()


def seed_tensor(seeds: Sequence[int] | Tensor, device: torch.device | None = None) -> Tensor:
    """Seeds of rows, any integers, as (B,) int64; of larger ones the lowest 64 bits count."""
    if not isinstance(seeds, Tensor):
        seeds = torch.tensor([signed(seed) for seed in seeds], dtype=torch.int64)
    return seeds.to(device)


def uniform_noise(seeds: Sequence[int] | Tensor, length: int) -> Tensor:
    """The uniform numbers of the first `length` positions of rows: (B, length) float64 in [0, 1)."""
    of_rows = seed_tensor(seeds)
    return uniform(position_keys(of_rows, torch.arange(length, device=of_rows.device)[None]))


def gumbel_max(logits: Tensor, keys: Tensor) -> Tensor:
    """The token with the largest sum of logit and Gumbel noise, a draw from the softmax of the logits.

    Args:
        logits: (B, V), -inf where a token may not be drawn.
        keys: (B,) int64, random bits of each row.

    Returns: tokens (B,) int64.
    """
    if is_large(logits):  # one by one, in memory that stays in the processor's cache
        found = [_gumbel_max(*row) for row in zip(logits, keys, strict=True)]
        return torch.stack(found) if found else keys
    sums = logits.double()
    kept = logits > -torch.inf
    if int(kept.sum()) * FEW < kept.numel():
        row, token = kept.nonzero(as_tuple=True)
        noise = gumbel(mix(keys[row] ^ token))
        return sums.index_put((row, token), sums[row, token] + noise).argmax(-1)
    tokens = torch.arange(logits.shape[-1], device=logits.device)
    return (sums + gumbel(mix(keys[:, None] ^ tokens))).argmax(-1)


def _gumbel_max(logits: Tensor, key: Tensor) -> Tensor:
    """`gumbel_max` of one row, logits (V,) on a CPU; its token ()."""
    kept = as_array(logits) > -np.inf
    count = np.count_nonzero(kept)
    if 0 < count * FEW < len(kept):
        tokens = torch.from_numpy(np.flatnonzero(kept))
        return tokens[argmax(gumbel(mix(key ^ tokens)).add_(logits[tokens]))]
    return argmax(gumbel(mix(key ^ torch.arange(len(kept)))).add_(logits))


class Noise(ABC):
    """Where the random numbers of draws come from, and how a token is drawn with them."""

    reads_history: ClassVar[bool] = False  # whether `draw` needs the tokens before

    @abstractmethod
    def numbers(self, seeds: Tensor, positions: Tensor) -> Tensor:
        """What `draw` needs for positions (B, n) in rows of seeds (B,): (B, n)."""

    @abstractmethod
    def draw(self, logits: Tensor, numbers: Tensor, history: History | None) -> Tensor:
        """Draw a token for each row.

        Args:
            logits: (B, V), -inf where a token may not be drawn.
            numbers: (B,), those of the position.
            history: the tokens before; None is possible unless `reads_history`.

        Returns: tokens (B,) int64.
        """


@dataclass(frozen=True)
class Uniform(Noise):
    """One uniform number for each position, and the inverse CDF: the cheapest draw."""

    def numbers(self, seeds: Tensor, positions: Tensor) -> Tensor:
        return uniform(position_keys(seeds, positions))

    def draw(self, logits: Tensor, numbers: Tensor, history: Any = None) -> Tensor:
        return draw(logits, numbers)


@dataclass(frozen=True)
class Gumbel(Noise):
    """One Gumbel number for each position and token, and the largest sum of logit and noise.

    A draw costs a hash for each kept token. Networks of similar distributions draw equal tokens more often.
    """

    def numbers(self, seeds: Tensor, positions: Tensor) -> Tensor:
        return position_keys(seeds, positions)

    def draw(self, logits: Tensor, numbers: Tensor, history: Any = None) -> Tensor:
        return gumbel_max(logits, numbers)
