"""Blocks of transformers: attention and an MLP, each in a residual branch.

    Block          causal self-attention, MLP                        language models
    EncoderBlock   self-attention over a whole source, MLP           encoders
    DecoderBlock   causal self-attention, cross-attention, MLP       decoders of translators

References:
    | Attention Is All You Need (Vaswani et al., 2017), post-norm | https://arxiv.org/abs/1706.03762
    | On Layer Normalization in the Transformer Architecture (Xiong et al., 2020), pre-norm
    | https://arxiv.org/abs/2002.04745
"""

from __future__ import annotations

from torch import Tensor, nn

from arlm.layers.attention import CausalSelfAttention, MultiHeadAttention
from arlm.layers.encoder import by_sentence
from arlm.layers.kv_cache import KVCache, Slots
from arlm.layers.mlp import MLP


class Block(nn.Module):
    """Pre-norm: x + f(norm(x)) for attention, then for the MLP. Post-norm: norm(x + f(x))."""

    def __init__(
        self, attention: CausalSelfAttention, mlp: MLP, norms: list[nn.Module], norm_first: bool
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = norms
        self.attention, self.mlp = attention, mlp
        self.norm_first = norm_first
        self.drop = nn.Dropout(attention.dropout)

    def forward(
        self,
        x: Tensor,
        rotary: Tensor | None,
        bias: Tensor | None,
        prefix: KVCache | None = None,
    ) -> Tensor:
        if self.norm_first:
            x = x + self.drop(self.attention(self.attention_norm(x), rotary, bias, prefix))
            return x + self.drop(self.mlp(self.mlp_norm(x)))
        x = self.attention_norm(x + self.drop(self.attention(x, rotary, bias, prefix)))
        return self.mlp_norm(x + self.drop(self.mlp(x)))

    def keys(self, x: Tensor, rotary: Tensor | None) -> KVCache:
        """Keys and values of the block's input (B, S, width)."""
        return self.attention.keys(self.attention_norm(x) if self.norm_first else x, rotary)

    def step(
        self,
        x: Tensor,
        cache: KVCache,
        slots: Slots,
        bias: Tensor,
        rotary: Tensor | None,
        prefix: KVCache | None = None,
    ) -> Tensor:
        rest = cache, slots, bias, rotary, prefix
        if self.norm_first:
            x = x + self.attention.step(self.attention_norm(x), *rest)
            return x + self.mlp(self.mlp_norm(x))
        x = self.attention_norm(x + self.attention.step(x, *rest))
        return self.mlp_norm(x + self.mlp(x))


class Residual(nn.Module):
    """Pre-norm: x + f(norm(x)). Post-norm: norm(x + f(x))."""

    def __init__(self, width: int, norm_first: bool, dropout: float) -> None:
        super().__init__()
        self.norm, self.norm_first = nn.LayerNorm(width), norm_first
        self.drop = nn.Dropout(dropout)

    def before(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.norm_first else x

    def after(self, x: Tensor, y: Tensor) -> Tensor:
        x = x + self.drop(y)
        return x if self.norm_first else self.norm(x)


class EncoderBlock(nn.Module):
    """Self-attention of the source, then an MLP."""

    def __init__(self, attention: MultiHeadAttention, mlp: MLP, residuals: list[Residual]) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.attention_residual, self.mlp_residual = residuals

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        y = self.attention_residual.before(x)
        x = self.attention_residual.after(x, self.attention(y, self.attention.keys(y), bias)[0])
        return self.mlp_residual.after(x, self.mlp(self.mlp_residual.before(x)))


class DecoderBlock(nn.Module):
    """Causal self-attention of the target, cross-attention to the source, then an MLP."""

    def __init__(
        self,
        attention: CausalSelfAttention,
        source: MultiHeadAttention,
        mlp: MLP,
        residuals: list[Residual],
    ) -> None:
        super().__init__()
        self.attention, self.source, self.mlp = attention, source, mlp
        self.attention_residual, self.source_residual, self.mlp_residual = residuals

    def forward(self, x: Tensor, keys: KVCache, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Args: x (B, T, width), the source's keys and bias. Returns x and weights (B, heads, T, S)."""
        return self._rest(x, self.attention(self.attention_residual.before(x)), keys, bias)

    def step(
        self, x: Tensor, cache: KVCache, slots: Slots, mask: Tensor, keys: KVCache, bias: Tensor
    ) -> Tensor:
        """New positions (B, S, width); see CausalSelfAttention.step."""
        y = self.attention.step(self.attention_residual.before(x), cache, slots, mask, None)
        return self._rest(x, y, keys, bias)[0]

    def _rest(self, x: Tensor, y: Tensor, keys: KVCache, bias: Tensor) -> tuple[Tensor, Tensor]:
        x = self.attention_residual.after(x, y)
        query = by_sentence(self.source_residual.before(x), len(bias))
        read, weights = self.source(query, keys, bias)
        x = self.source_residual.after(x, read.view_as(x))
        return self.mlp_residual.after(x, self.mlp(self.mlp_residual.before(x))), weights
