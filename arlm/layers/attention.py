"""Causal self-attention with a preallocated cache, and rotary positions.

References:
    | Attention Is All You Need (Vaswani et al., 2017) | https://arxiv.org/abs/1706.03762
    | RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021)
    | https://arxiv.org/abs/2104.09864
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

EXPLICIT_LENGTH = 256

Cache = tuple[Tensor, Tensor]  # keys and values, each (B, heads, T, width / heads)


def rotary_table(length: int, size: int, base: float = 10000.0) -> Tensor:
    """cos and sin of position * base**(-2i / size), (2, length, size / 2)."""
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn each pair (i, i + size/2) of features by the angle of its position.

    Args:
        x: (B, heads, T, size).
        table: (2, T, size / 2), or (2, B, 1, T, size / 2) for positions that differ between rows.
    """
    cos, sin = table.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """softmax(q k^T / sqrt(d) + causal mask) v, (B, heads, T, d) each.

    The fused kernel everywhere but for short rows in bfloat16 on a CPU, where its backward pass costs
    more than the (T, T) weights that it saves (`tools/bench/attention.py`).
    """
    length = q.shape[2]
    explicit = q.device.type == "cpu" and q.dtype == torch.bfloat16 and length <= EXPLICIT_LENGTH
    if explicit:
        return explicit_attention(q, k, v, dropout)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)


def explicit_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """As `causal_attention`, by two batched products."""
    length = q.shape[2]
    future = torch.full((length, length), -math.inf, dtype=q.dtype, device=q.device).triu(1)
    scores = torch.baddbmm(future, (q * q.shape[-1] ** -0.5).flatten(0, 1), k.flatten(0, 1).mT)
    weights = F.dropout(scores.softmax(-1).to(v.dtype), dropout)
    return (weights @ v.flatten(0, 1)).unflatten(0, q.shape[:2])


class CausalSelfAttention(nn.Module):
    """softmax(q k^T / sqrt(d) + causal mask) v, over several heads.

    Args:
        width: features of input and output.
        heads: number of heads; divides `width`.
        dropout: probability of zeroing an attention weight in training.

    Shapes: (B, T, width) -> (B, T, width).
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def _project(self, x: Tensor, rotary: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        pattern = "b t (three heads d) -> three b heads t d"
        q, k, v = rearrange(self.qkv(x), pattern, three=3, heads=self.heads)
        return (q, k, v) if rotary is None else (rotate(q, rotary), rotate(k, rotary), v)

    def forward(self, x: Tensor, rotary: Tensor | None = None) -> Tensor:
        q, k, v = self._project(x, rotary)
        y = causal_attention(q, k, v, self.dropout if self.training else 0.0)
        return self.out(rearrange(y, "b heads t d -> b t (heads d)"))

    def cache(self, batch: int, length: int) -> Cache:
        """Room for the keys and values of `length` positions."""
        width = self.out.weight.shape[0]
        zeros = self.out.weight.new_zeros
        shape = (batch, self.heads, length, width // self.heads)
        return zeros(shape), zeros(shape)

    def step(
        self, x: Tensor, cache: Cache, slots: Tensor, visible: Tensor, rotary: Tensor | None
    ) -> Tensor:
        """Attend from new positions to all so far, writing their keys and values into `cache`.

        Args:
            x: (B, S, width), the new positions.
            cache: is written in place.
            slots: (B * heads * S,) int64, where in the flattened cache the new positions go.
            visible: (B, 1, S, T), 0 where a new position may look and -inf where it may not.
            rotary: as `rotate` takes it, or None.

        Returns: (B, S, width).
        """
        q, k, v = self._project(x, rotary)
        for kept, new in zip(cache, (k, v), strict=True):
            kept.view(-1, kept.shape[-1]).index_copy_(0, slots, new.reshape(-1, new.shape[-1]))
        keys, values = cache
        # Written out: the fused kernel takes ten times as long for a single query on a CPU.
        scores = q @ keys.transpose(-2, -1) * (1 / math.sqrt(q.shape[-1])) + visible
        return self.out(rearrange(scores.softmax(-1) @ values, "b heads t d -> b t (heads d)"))
