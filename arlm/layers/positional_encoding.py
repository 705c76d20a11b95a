"""Positional encodings: rotary, sinusoidal, and ALiBi's linear biases.

References:
    | Attention Is All You Need (Vaswani et al., 2017), sinusoids | https://arxiv.org/abs/1706.03762
    | RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021)
    | https://arxiv.org/abs/2104.09864
    | Train Short, Test Long: Attention with Linear Biases (Press et al., 2022), ALiBi
    | https://arxiv.org/abs/2108.12409
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from arlm.layers.constants import ConstantBuffers


def rotary_table(length: int, size: int, base: float = 10000.0, first: int = 0) -> Tensor:
    """cos and sin of position * base**(-2i / size), (2, length, size / 2), from position `first`."""
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.arange(first, first + length, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate each pair (i, i + size/2) of features by the angle of its position.

    Args:
        x: (B, heads, T, size).
        table: (2, T, size / 2), or (2, B, 1, T, size / 2) for positions that differ between rows.
    """
    cos, sin = table.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def alibi_slopes(heads: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """2**(-8 i / heads) for head i = 1 ... heads; interpolated if heads is not a power of two."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    slopes += [2 ** (-4 * i / power) for i in range(1, 2 * (heads - power), 2)]
    return torch.tensor(slopes, dtype=dtype)


def sinusoids(length: int, width: int) -> Tensor:
    """sin and cos of position * 10000**(-2i / width), (length, width): Vaswani's positional encoding."""
    return torch.cat([*rotary_table(length, width).flip(0)], dim=-1)


class SinusoidalEncoding(ConstantBuffers):
    """The table of `sinusoids` as a buffer, (length, width)."""

    table: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.length, self.width = length, width
        self.register_constants()

    def constants(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return {"table": sinusoids(self.length, self.width).to(dtype)}


class AlibiSlopes(ConstantBuffers):
    """ALiBi's slope of each head as a buffer, (heads,)."""

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.register_constants()

    def constants(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return {"slopes": alibi_slopes(self.heads, dtype)}
