"""Transformer encoder and decoder for translation.

References:
    | Attention Is All You Need (Vaswani et al., 2017), post-norm
    | https://arxiv.org/abs/1706.03762
    | On Layer Normalization in the Transformer Architecture (Xiong et al., 2020), pre-norm
    | https://arxiv.org/abs/2002.04745
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arlm.core import Spec
from arlm.layers.activation_checkpointing import run_block
from arlm.layers.attention import CausalSelfAttention, MultiHeadAttention, causal_mask
from arlm.layers.blocks import DecoderBlock, EncoderBlock, Residual
from arlm.layers.checks import check_heads, check_sizes
from arlm.layers.encoder import (
    Sources,
    SourceState,
    padding_bias,
    read_sources,
    source_spec,
    tie_embeddings,
)
from arlm.layers.features import MAX_LOGITS, FeatureAutoregressor
from arlm.layers.head import logits_of
from arlm.layers.kv_cache import CachedState, KVCache
from arlm.layers.mlp import MLP
from arlm.layers.positional_encoding import SinusoidalEncoding
from arlm.layers.segments import without_ignored
from arlm.states import grows, read_lengths


@dataclass(frozen=True)
class TransformerSources(Sources):
    """Keys and values of the sources for the cross-attention of every decoder block."""

    keys: tuple[KVCache, ...] = field(metadata=grows(2))


@dataclass(frozen=True)
class TransformerSeq2SeqState(CachedState, SourceState):
    """Keys and values of every decoder block: of the target, in `caches`, and of the sources."""


class TransformerSeq2Seq(FeatureAutoregressor):
    """The encoder attends to the whole source; position t of the decoder depends on [start, x_0 ... x_{t-1}].

    Args:
        spec: of the data; its context is the source sentences. Rows have at most `spec.length` tokens.
        width: features of every position.
        depth: blocks of the encoder, and of the decoder.
        heads: attention heads; `width` / `heads` is even.
        mlp_width: hidden features of an MLP, by default 4 times `width`.
        mlp: "relu", "gelu" or "swiglu".
        norm_first: pre-norm; otherwise post-norm, without a norm after the last block.
        positions: "sinusoidal", or "learned" vectors.
        dropout: probability of zeroing a feature of embeddings and of residual branches, in [0, 1).
        attention_dropout: probability of zeroing an attention weight, in [0, 1).
        tied: the head's weights are the target's embedding.
        shared: source and target have one embedding; needs a joint tokenizer.
        activation_checkpointing: compute the activations of blocks again in the backward pass instead of keeping
            them: less memory, one more forward pass, the same gradients.
        max_logits: logits that scoring holds at once; larger batches are scored in blocks of tokens.

    Shapes: tokens (B, T), context (B, S) -> logits (B, T, V).
    """

    uses_context = True
    encoder: Any
    decoder: Any

    def __init__(
        self,
        spec: Spec,
        width: int = 256,
        depth: int = 3,
        heads: int = 8,
        mlp_width: int | None = None,
        mlp: Literal["relu", "gelu", "swiglu"] = "relu",
        norm_first: bool = True,
        positions: Literal["sinusoidal", "learned"] = "sinusoidal",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        tied: bool = True,
        shared: bool = False,
        activation_checkpointing: bool = False,
        max_logits: int = MAX_LOGITS,
    ) -> None:
        super().__init__(spec, max_logits)
        source = source_spec(spec)
        hidden = 4 * width if mlp_width is None else mlp_width
        check_sizes(width=width, depth=depth, heads=heads, dropout=dropout, mlp_width=hidden)
        check_sizes(attention_dropout)
        check_heads(width, heads, heads)
        self.width = width
        self.activation_checkpointing = activation_checkpointing
        self.embed = nn.Embedding(spec.vocab_size, width)
        self.embed_source = nn.Embedding(source.vocab_size, width)
        if shared:
            tie_embeddings(spec, self.embed_source, self.embed)
        self.start_vector = nn.Parameter(torch.empty(width))
        longest = max(spec.length, source.length)
        self.position_vectors = None
        if positions == "learned":
            self.position_vectors = nn.Parameter(torch.empty(longest, width))
        else:
            self.sinusoids = SinusoidalEncoding(longest, width)
        self.drop = nn.Dropout(dropout)

        def residuals(count: int) -> list[Residual]:
            return [Residual(width, norm_first, dropout) for _ in range(count)]

        def attention(queries: str) -> MultiHeadAttention:
            return MultiHeadAttention(width, heads, attention_dropout, queries)

        self.encoder = nn.ModuleList(
            EncoderBlock(attention("context"), MLP(width, hidden, mlp), residuals(2))
            for _ in range(depth)
        )
        self.decoder = nn.ModuleList(
            DecoderBlock(
                CausalSelfAttention(width, heads, attention_dropout),
                attention("tokens"),
                MLP(width, hidden, mlp),
                residuals(3),
            )
            for _ in range(depth)
        )
        self.encoder_norm, self.decoder_norm = (
            nn.LayerNorm(width) if norm_first else nn.Identity() for _ in range(2)
        )
        self.head = nn.Linear(width, spec.vocab_size)
        if tied:
            self.head.weight = self.embed.weight
        self._initialise()

    def _initialise(self) -> None:
        """Glorot initialisation for matrices, N(0, 1 / width) for embeddings, which `_scaled` multiplies."""
        for name, parameter in self.named_parameters():
            if name.startswith(("embed", "start_vector", "head.weight", "position_vectors")):
                nn.init.normal_(parameter, std=self.width**-0.5)
            elif parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def features(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self._run(tokens, context)[0]

    def logits(self, features: Tensor) -> Tensor:
        return logits_of(self.head, features)

    def attention_weights(self, tokens: Tensor, context: Tensor | None = None) -> Tensor | None:
        """Mean over the heads of the second to last block, whose weights align best, or of a single block."""
        weights = self._run(tokens, context)[1]
        return weights[max(0, len(weights) - 2)].mean(1)

    def _run(self, tokens: Tensor, context: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """What the head reads (B, T, width), and each decoder block's weights (B, heads, T, S)."""
        keys, bias = self._encode(context)
        x = torch.cat([self._begin(len(tokens)), self._scaled(self.embed(tokens))[:, :-1]], dim=1)
        x = self.drop(x + self.encodings(slice(x.shape[1])).to(x.dtype))
        weights = []
        for block, of_source in zip(self.decoder, keys, strict=True):
            x, weight = run_block(block, self.activation_checkpointing, x, of_source, bias)
            weights.append(weight)
        return self.decoder_norm(x), weights

    def _begin(self, batch: int) -> Tensor:
        """Input of position 0 of the decoder, (B, 1, width)."""
        return self._scaled(self.start_vector).expand(batch, 1, -1)

    def encodings(self, positions: Tensor | slice) -> Tensor:
        """Encodings (..., width) of positions (...)."""
        table = self.sinusoids.table if self.position_vectors is None else self.position_vectors
        return table[positions]

    def _scaled(self, x: Tensor) -> Tensor:
        return x * math.sqrt(self.width)

    def _encode(self, context: Tensor | None) -> tuple[tuple[KVCache, ...], Tensor]:
        """Keys and values of the sources (B, S) for every block of the decoder, and the bias (B, S)."""
        longest = max(self.spec.length, source_spec(self.spec).length)
        context, lengths = read_sources(self.spec, context, longest)
        bias = padding_bias(lengths, context.shape[1])
        x = self._scaled(self.embed_source(context))
        x = self.drop(x + self.encodings(slice(x.shape[1])).to(x.dtype))
        for block in self.encoder:
            x = run_block(block, self.activation_checkpointing, x, bias)
        x = self.encoder_norm(x)
        return tuple(block.source.keys(x) for block in self.decoder), bias

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, TransformerSeq2SeqState]:
        keys, bias = self._encode(context)
        caches = tuple(block.attention.kv_cache(batch, length) for block in self.decoder)
        rows = torch.arange(batch, device=bias.device)
        state = TransformerSeq2SeqState(
            TransformerSources(bias, keys, net=self.serial),
            *(rows, [], caches, torch.zeros_like(rows), 0, length),
            net=self.serial,
        )
        logits, state = self._step(self._begin(batch), state, None)
        return logits[:, 0], state

    def advance(
        self, tokens: Tensor, state: TransformerSeq2SeqState, lengths: Tensor | None = None
    ) -> tuple[Tensor, TransformerSeq2SeqState]:
        state.consume(self)
        if lengths is not None:
            lengths = read_lengths(tokens, lengths)
            tokens = without_ignored(tokens, lengths)
        return self._step(self._scaled(self.embed(tokens)), state, lengths)

    def _step(
        self, x: Tensor, state: TransformerSeq2SeqState, lengths: Tensor | None
    ) -> tuple[Tensor, TransformerSeq2SeqState]:
        """Inputs of new positions (B, S, width) -> logits (B, S, V), and the state with these positions."""
        slots, after = state.side_by_side().reserve(x.shape[1], lengths)
        x = x + self.encodings(slots.positions).to(x.dtype)
        mask = causal_mask(slots.positions, torch.arange(slots.filled, device=x.device))
        mask = mask[:, None].to(x.dtype)
        sources = after.sources
        for block, cache, keys in zip(self.decoder, after.caches, sources.keys, strict=True):
            x = block.step(x, cache, slots, mask, keys, sources.bias)
        return self.logits(self.decoder_norm(x)), after
