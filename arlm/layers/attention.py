"""Causal self-attention with a key-value cache and sliding windows, and cross-attention.

References:
    | Attention Is All You Need (Vaswani et al., 2017) | https://arxiv.org/abs/1706.03762
    | GQA: Training Generalized Multi-Query Transformer Models (Ainslie et al., 2023)
    | https://arxiv.org/abs/2305.13245
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from arlm.layers.kv_cache import KVCache, Slots
from arlm.layers.positional_encoding import rotate

EXPLICIT_LENGTH = 256


def causal_mask(
    queries: Tensor,
    keys: Tensor,
    slopes: Tensor | None = None,
    sliding_window: int | None = None,
) -> Tensor:
    """The bias that is added to attention scores: -inf for hidden keys, and ALiBi's linear penalty.

    A query at position i sees the keys at positions j <= i; with a sliding window of w, i - w < j <= i:

        w = 3    j 0 1 2 3 4
        i = 0      0 - - - -
        i = 1      0 0 - - -
        i = 2      0 0 0 - -
        i = 3      - 0 0 0 -      - is -inf
        i = 4      - - 0 0 0

    Args:
        queries, keys: positions, (..., S) and (T,).
        slopes: (heads,) of ALiBi, or None.
        sliding_window: how many positions a query sees, its own included; None for all before it.

    Returns: (..., S, T), or (..., heads, S, T) with slopes.
    """
    distance = queries[..., :, None] - keys
    hidden = distance < 0
    if sliding_window is not None:
        hidden = hidden | (distance >= sliding_window)
    zeros = torch.zeros((), device=keys.device)
    bias = zeros if slopes is None else -slopes[:, None, None] * distance.unsqueeze(-3)
    return bias.where(~(hidden if slopes is None else hidden.unsqueeze(-3)), -math.inf)


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Tensor | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, (B, heads, T, d) each.

    Uses the fused kernel, except for short rows in bfloat16 on a CPU, where its backward pass takes longer
    than computing the (T, T) weights explicitly (`tools/bench/attention.py`).

    Args:
        bias: (T, T) or (heads, T, T) from `causal_mask`, or (B, 1, T, T); None for the plain causal mask.
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
    """`causal_attention` by two batched products, with explicit (T, T) weights."""
    length = q.shape[2]
    if bias is None:
        bias = torch.full((length, length), -math.inf, device=q.device).triu(1)
    bias = bias.to(q.dtype)
    if bias.ndim == 3:
        bias = bias.repeat(len(q), 1, 1)
    if bias.ndim == 4:
        bias = bias.expand(-1, q.shape[1], -1, -1).flatten(0, 1)
    scores = torch.baddbmm(bias, (q * q.shape[-1] ** -0.5).flatten(0, 1), k.flatten(0, 1).mT)
    weights = F.dropout(scores.softmax(-1).to(v.dtype), dropout)
    return (weights @ v.flatten(0, 1)).unflatten(0, q.shape[:2])


def cached_attention(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v for the new queries of incremental decoding.

    On a CPU the fused kernel is faster for one row or several queries; two batched products are faster for
    one query in each of several rows (`python -m tools.bench.attention` prints both).

    Args:
        q: (B, heads, S, d).
        keys, values: (B, heads, T, d).
        bias: broadcasts to (B, heads, S, T), or None.
    """
    if q.device.type != "cpu" or len(q) == 1 or q.shape[2] > 1:
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=bias)
    scores = q @ keys.mT * (1 / math.sqrt(q.shape[-1]))
    return (scores if bias is None else scores + bias).softmax(-1) @ values


def joined(prefix: KVCache | None, new: KVCache) -> KVCache:
    """Keys and values (1, heads, P, d) of a prefix, if there is one, and then those of B rows."""
    if prefix is None:
        return new
    rows = len(new[0])
    keys, values = (
        torch.cat([before.expand(rows, -1, -1, -1), after], dim=2)
        for before, after in zip(prefix, new, strict=True)
    )
    return keys, values


class CausalSelfAttention(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v, over several heads.

    Args:
        width: features of input and output.
        heads: number of heads; divides `width`.
        dropout: probability of zeroing an attention weight in training.
        kv_heads: heads of keys and values, each shared by heads / kv_heads query heads (Ainslie et al.,
            2023); by default `heads`.
        bias: whether the two linear maps have a bias.
        qkv_bias: whether the map to queries, keys and values has a bias; by default as `bias` (Qwen differs).

    Shapes: (B, T, width) -> (B, T, width).
    """

    queries_of = keys_of = "tokens"  # and the start before them

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float = 0.0,
        kv_heads: int | None = None,
        bias: bool = True,
        qkv_bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.kv_heads = heads if kv_heads is None else kv_heads
        size = (heads + 2 * self.kv_heads) * (width // heads)
        self.qkv = nn.Linear(width, size, bias=bias if qkv_bias is None else qkv_bias)
        self.out = nn.Linear(width, width, bias=bias)

    def _project(self, x: Tensor, rotary: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        features = rearrange(self.qkv(x), "b t (h d) -> b h t d", h=self.heads + 2 * self.kv_heads)
        q, k, v = features.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        return (q, k, v) if rotary is None else (rotate(q, rotary), rotate(k, rotary), v)

    def keys(self, x: Tensor, rotary: Tensor | None) -> KVCache:
        """Keys and values of (B, S, width), such as those of a trained prompt."""
        return self._project(x, rotary)[1:]

    def forward(
        self,
        x: Tensor,
        rotary: Tensor | None = None,
        bias: Tensor | None = None,
        prefix: KVCache | None = None,
    ) -> Tensor:
        """With a prefix of P keys and values (1, heads, P, d) before those of x, `bias` is (..., T, P + T)."""
        q, k, v = self._project(x, rotary)
        k, v = joined(prefix, (k, v))
        if self.kv_heads < self.heads:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        y = causal_attention(q, k, v, self.dropout if self.training else 0.0, bias)
        return self.out(rearrange(y, "b heads t d -> b t (heads d)"))

    def weights(
        self,
        x: Tensor,
        rotary: Tensor | None = None,
        bias: Tensor | None = None,
        prefix: KVCache | None = None,
    ) -> Tensor:
        """The weights (B, heads, T, T) by which `forward` averages the values, without dropout.

        Those of a prefix are left out, so rows may sum to less than 1.
        """
        q, k, v = self._project(x, rotary)
        k, _ = joined(prefix, (k, v))
        k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)
        if bias is None:
            bias = torch.full((x.shape[1],) * 2, -math.inf, device=x.device).triu(1)
        scores = q @ k.mT * q.shape[-1] ** -0.5
        return (scores + bias.to(q.dtype)).softmax(-1)[..., k.shape[2] - x.shape[1] :]

    def kv_cache(self, batch: int, length: int) -> KVCache:
        """An empty key-value cache for `length` positions."""
        weight = self.out.weight
        shape = (batch, self.kv_heads, length, weight.shape[0] // self.heads)
        # Not weight.new_zeros: the weight may be sharded over processes (FSDP2), and the cache is not.
        keys, values = (
            torch.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in range(2)
        )
        return keys, values

    def step(
        self,
        x: Tensor,
        cache: KVCache,
        slots: Slots,
        bias: Tensor,
        rotary: Tensor | None,
        prefix: KVCache | None = None,
    ) -> Tensor:
        """Write the keys and values of new positions into `cache`, and attend from them to what it holds.

        Args:
            x: (B, S, width), the new positions.
            cache: written in place.
            slots: of the new positions, from `CachedState.reserve`; attention reads T = `slots.filled`.
            bias: (B, heads or 1, S, T), as `causal_mask` gives it; P + T in place of T with a prefix.
            rotary: as `rotate` takes it, or None.
            prefix: keys and values (1, heads, P, d) before those of the cache.

        Returns: (B, S, width).
        """
        q, k, v = self._project(x, rotary)
        keys, values = joined(prefix, slots.write(cache, (k, v)))
        if self.kv_heads < self.heads:  # the query heads of a group are adjacent
            group = self.heads // self.kv_heads
            q = rearrange(q, "b (kv g) s d -> b kv (g s) d", g=group)
            bias = rearrange(
                bias.expand(-1, self.heads, -1, -1), "b (kv g) s t -> b kv (g s) t", g=group
            )
        y = cached_attention(q, keys, values, bias)
        return self.out(rearrange(y, "b kv (g s) d -> b s (kv g d)", s=x.shape[1]))


class MultiHeadAttention(nn.Module):
    """softmax(q k^T / sqrt(d) + bias) v with keys and values of any sequence, without a causal mask.

    Args:
        width: features of input and output.
        heads: number of heads; divides `width`.
        dropout: probability of zeroing an attention weight in training.
        queries: whether the tokens ask, or those of the context.
    """

    keys_of = "context"

    def __init__(
        self, width: int, heads: int, dropout: float = 0.0, queries: str = "tokens"
    ) -> None:
        super().__init__()
        self.heads, self.dropout, self.queries_of = heads, dropout, queries
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys(self, memory: Tensor) -> KVCache:
        """Keys and values of a sequence (B, S, width), to be computed once for all queries."""
        key_value = rearrange(
            self.key_value(memory), "b s (two h d) -> two b h s d", two=2, h=self.heads
        )
        keys, values = key_value.contiguous()  # because every decoding step reads them
        return keys, values

    def forward(self, x: Tensor, keys: KVCache, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Args: x (B, T, width); keys from `keys`; bias (B, S), -inf at padding, or (B, heads, T, S).

        Returns: (B, T, width), and the weights (B, heads, T, S), which sum to 1.
        """
        weights, v = self.weights(x, keys, bias), keys[1]
        y = F.dropout(weights, self.dropout, self.training) @ v
        return self.out(rearrange(y, "b heads t d -> b t (heads d)")), weights

    def weights(self, x: Tensor, keys: KVCache, bias: Tensor) -> Tensor:
        """The weights (B, heads, T, S) of `forward`, before dropout."""
        k, v = keys
        q = rearrange(
            self.query(x) * (x.shape[-1] / self.heads) ** -0.5, "b t (h d) -> b h t d", h=self.heads
        )
        bias = bias[:, None, None] if bias.ndim == 2 else bias
        return (q @ k.mT + bias.to(q.dtype)).softmax(-1).to(v.dtype)
