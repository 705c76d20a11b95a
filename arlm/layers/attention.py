"""Causal self-attention with a preallocated cache; rotary and ALiBi positions; local bands.

References:
    | Attention Is All You Need (Vaswani et al., 2017) | https://arxiv.org/abs/1706.03762
    | RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021)
    | https://arxiv.org/abs/2104.09864
    | Train Short, Test Long: Attention with Linear Biases (Press et al., 2022), ALiBi
    | https://arxiv.org/abs/2108.12409
    | GQA: Training Generalized Multi-Query Transformer Models (Ainslie et al., 2023)
    | https://arxiv.org/abs/2305.13245
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from arlm.errors import UserError

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


def alibi_slopes(heads: int) -> Tensor:
    """2**(-8 i / heads) for head i = 1 ... heads; the paper interpolates them for no power of two."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    slopes += [2 ** (-4 * i / power) for i in range(1, 2 * (heads - power), 2)]
    return torch.tensor(slopes)


def attention_bias(
    queries: Tensor, keys: Tensor, slopes: Tensor | None = None, band: int | None = None
) -> Tensor:
    """What is added to the scores: -inf where a query may not look, and ALiBi's fall with distance.

    Args:
        queries, keys: positions, (..., S) and (T,).
        slopes: (heads,) of ALiBi, or None.
        band: how many positions back a query sees, itself among them; None for all.

    Returns: (..., S, T), or (..., heads, S, T) with slopes.
    """
    distance = queries[..., :, None] - keys
    hidden = distance < 0 if band is None else (distance < 0) | (distance >= band)
    zeros = torch.zeros((), device=keys.device)
    bias = zeros if slopes is None else -slopes[:, None, None] * distance.unsqueeze(-3)
    return bias.where(~(hidden if slopes is None else hidden.unsqueeze(-3)), -math.inf)


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Tensor | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, (B, heads, T, d) each.

    The fused kernel everywhere but for short rows in bfloat16 on a CPU, where its backward pass costs
    more than the (T, T) weights that it saves (`tools/bench/attention.py`).

    Args:
        bias: (T, T) or (heads, T, T) from `attention_bias`; None for the plain causal mask.
    """
    length = q.shape[2]
    explicit = q.device.type == "cpu" and q.dtype == torch.bfloat16 and length <= EXPLICIT_LENGTH
    if explicit:
        return explicit_attention(q, k, v, dropout, bias)
    if bias is None:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), dropout_p=dropout)


def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Tensor | None = None
) -> Tensor:
    """As `causal_attention`, by two batched products."""
    length = q.shape[2]
    if bias is None:
        bias = torch.full((length, length), -math.inf, device=q.device).triu(1)
    bias = bias.to(q.dtype)
    if bias.ndim == 3:
        bias = bias.repeat(len(q), 1, 1)
    scores = torch.baddbmm(bias, (q * q.shape[-1] ** -0.5).flatten(0, 1), k.flatten(0, 1).mT)
    weights = F.dropout(scores.softmax(-1).to(v.dtype), dropout)
    return (weights @ v.flatten(0, 1)).unflatten(0, q.shape[:2])


def check_heads(width: int, heads: int, kv_heads: int) -> None:
    """Refuse heads that do not divide the width, or one another."""
    if width % (2 * heads):
        raise UserError(
            f"model.net.width: {width} does not divide into {heads} heads of an even size; "
            f"choose a multiple of {2 * heads}"
        )
    if heads % kv_heads:
        raise UserError(
            f"model.net.kv_heads: {kv_heads} does not divide {heads} heads; choose a divisor of it"
        )


class CausalSelfAttention(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v, over several heads.

    Args:
        width: features of input and output.
        heads: number of heads; divides `width`.
        dropout: probability of zeroing an attention weight in training.
        kv_heads: heads of keys and values, each shared by heads / kv_heads queries (Ainslie et al., 2023);
            by default `heads`.
        bias: whether the two linear maps have one.

    Shapes: (B, T, width) -> (B, T, width).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        kv_heads: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.kv_heads = heads if kv_heads is None else kv_heads
        self.qkv = nn.Linear(width, (heads + 2 * self.kv_heads) * (width // heads), bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def _project(self, x: Tensor, rotary: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        features = rearrange(self.qkv(x), "b t (h d) -> b h t d", h=self.heads + 2 * self.kv_heads)
        q, k, v = features.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        return (q, k, v) if rotary is None else (rotate(q, rotary), rotate(k, rotary), v)

    def forward(
        self, x: Tensor, rotary: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        q, k, v = self._project(x, rotary)
        if self.kv_heads < self.heads:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        y = causal_attention(q, k, v, self.dropout if self.training else 0.0, bias)
        return self.out(rearrange(y, "b heads t d -> b t (heads d)"))

    def cache(self, batch: int, length: int) -> Cache:
        """Room for the keys and values of `length` positions."""
        width = self.out.weight.shape[0]
        zeros = self.out.weight.new_zeros
        shape = (batch, self.kv_heads, length, width // self.heads)
        return zeros(shape), zeros(shape)

    def step(
        self, x: Tensor, cache: Cache, slots: Tensor, bias: Tensor, rotary: Tensor | None
    ) -> Tensor:
        """Attend from new positions to all so far, writing their keys and values into `cache`.

        Args:
            x: (B, S, width), the new positions.
            cache: is written in place.
            slots: (B * kv_heads * S,) int64, where in the flattened cache the new positions go.
            bias: (B, heads or 1, S, T), as `attention_bias` gives it.
            rotary: as `rotate` takes it, or None.

        Returns: (B, S, width).
        """
        q, k, v = self._project(x, rotary)
        for kept, new in zip(cache, (k, v), strict=True):
            kept.view(-1, kept.shape[-1]).index_copy_(0, slots, new.reshape(-1, new.shape[-1]))
        keys, values = cache
        if self.kv_heads < self.heads:  # the queries of a group lie one after the other
            group = self.heads // self.kv_heads
            q = rearrange(q, "b (kv g) s d -> b kv (g s) d", g=group)
            bias = rearrange(
                bias.expand(-1, self.heads, -1, -1), "b (kv g) s t -> b kv (g s) t", g=group
            )
        # Written out: the fused kernel takes ten times as long for a single query on a CPU.
        scores = q @ keys.transpose(-2, -1) * (1 / math.sqrt(q.shape[-1])) + bias
        y = scores.softmax(-1) @ values
        return self.out(rearrange(y, "b kv (g s) d -> b s (kv g d)", s=x.shape[1]))

    def extend(self, x: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """As `step`, with a cache that grows: beams, which copy it at every step, copy no more than it holds.

        Args:
            x: (B, S, width), the positions after those in the cache.
            cache: keys and values (B, heads, T, width / heads) of T positions; is not changed. Keys are not
                shared between queries here.

        Returns: (B, S, width), and the cache of T + S positions.
        """
        q, k, v = self._project(x, None)
        old = cache[0].shape[2]
        keys, values = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
        scores = q @ keys.mT * (1 / math.sqrt(q.shape[-1]))
        if x.shape[1] > 1:
            at = torch.arange(old + x.shape[1], device=x.device)
            scores = scores + attention_bias(at[old:], at).to(scores.dtype)
        y = scores.softmax(-1) @ values
        return self.out(rearrange(y, "b heads s d -> b s (heads d)")), (keys, values)


class MultiHeadAttention(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v with keys and values of another sequence, or of its own.

    Args:
        width: features of input and output.
        heads: number of heads; divides `width`.
        dropout: probability of zeroing an attention weight in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys(self, memory: Tensor) -> Cache:
        """Keys and values of (B, S, width), formed once for all that is asked."""
        key_value = rearrange(
            self.key_value(memory), "b s (two h d) -> two b h s d", two=2, h=self.heads
        )
        keys, values = key_value.contiguous()  # read at every step
        return keys, values

    def forward(self, x: Tensor, keys: Cache, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Args: x (B, T, width); keys from `keys`; bias (B, S), -inf where nothing is to be read.

        Returns: (B, T, width), and the weights (B, heads, T, S), which sum to 1.
        """
        k, v = keys
        q = rearrange(
            self.query(x) * (x.shape[-1] / self.heads) ** -0.5, "b t (h d) -> b h t d", h=self.heads
        )
        weights = (q @ k.mT + bias[:, None, None].to(q.dtype)).softmax(-1).to(v.dtype)
        y = F.dropout(weights, self.dropout, self.training) @ v
        return self.out(rearrange(y, "b heads t d -> b t (heads d)")), weights


def sinusoids(length: int, width: int) -> Tensor:
    """sin and cos of position * 10000**(-2i / width), (length, width): Vaswani's positions."""
    return torch.cat([*rotary_table(length, width).flip(0)], dim=-1)
