"""Transformer language model: the decoder-only GPT and its descendants, by named options.

References:
    | Improving Language Understanding by Generative Pre-Training (Radford et al., 2018), GPT: post-norm
    | https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf
    | Language Models are Unsupervised Multitask Learners (Radford et al., 2019), GPT-2: pre-norm
    | https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
    | Language Models are Few-Shot Learners (Brown et al., 2020), GPT-3: dense and banded blocks in turn
    | https://arxiv.org/abs/2005.14165
    | LLaMA (Touvron et al., 2023): rotary positions, RMSNorm, SwiGLU, no biases
    | https://arxiv.org/abs/2302.13971
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arlm.core import Autoregressor, Spec, State, check_sizes, device_of
from arlm.errors import require
from arlm.layers.attention import (
    Cache,
    CausalSelfAttention,
    alibi_slopes,
    attention_bias,
    check_heads,
    rotary_table,
)
from arlm.layers.class_embedding import Label
from arlm.layers.mlp import MLP


@dataclass(frozen=True)
class TransformerState(State):
    """Keys and values of every block, and the number of positions that they hold."""

    caches: tuple[Cache, ...]
    position: Tensor  # (B,) int64


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

    def forward(self, x: Tensor, rotary: Tensor | None, bias: Tensor | None) -> Tensor:
        if self.norm_first:
            x = x + self.drop(self.attention(self.attention_norm(x), rotary, bias))
            return x + self.drop(self.mlp(self.mlp_norm(x)))
        x = self.attention_norm(x + self.drop(self.attention(x, rotary, bias)))
        return self.mlp_norm(x + self.drop(self.mlp(x)))

    def step(
        self, x: Tensor, cache: Cache, slots: Tensor, bias: Tensor, rotary: Tensor | None
    ) -> Tensor:
        if self.norm_first:
            x = x + self.attention.step(self.attention_norm(x), cache, slots, bias, rotary)
            return x + self.mlp(self.mlp_norm(x))
        x = self.attention_norm(x + self.attention.step(x, cache, slots, bias, rotary))
        return self.mlp_norm(x + self.mlp(x))


class TransformerLanguageModel(Autoregressor):
    """Position t reads [start, x_0, ..., x_{t-1}] and scores x_t; a class label adds to the start.

    Over the pixels of an image it is ImageGPT (Chen et al., 2020). `configs/model/gpt2.yaml` and
    `llama.yaml` have the published weights' layout.

    Args:
        spec: what the data is; any shape, read in raster order. Rows hold at most `spec.length` tokens
            (any number with ALiBi).
        width: features of every position.
        depth: blocks.
        heads: attention heads; divides `width`.
        positions: "rotary" turns queries and keys; "learned" adds a vector for each position; "alibi"
            lowers scores by distance.
        dropout: probability of zeroing a feature or an attention weight, in [0, 1).
        kv_heads: heads of keys and values, by default `heads`; divides it.
        norm: "layer" or "rms".
        norm_first: pre-norm; else post-norm, without a last norm.
        mlp: "gelu", "gelu_tanh" or "swiglu".
        mlp_width: hidden features of an MLP, by default 4 times `width`.
        bias: whether linear maps and LayerNorm have one.
        tied: the head's weights are the embedding's, and it has no bias.
        band: every second block sees so many positions only, the one that it stands at included.
        start_token: the token whose embedding the first position reads; by default a learned vector.
        rotary_base: longest wavelength of rotary positions over 2 pi.
        norm_eps: added to the variance in a norm.

    Shapes: tokens (B, T), context (B, 1) or None -> logits (B, T, V).
    """

    uses_context = True
    rotary: Tensor | None
    slopes: Tensor | None
    embed: nn.Embedding
    blocks: Any  # nn.ModuleList does not tell what it holds

    def __init__(
        self,
        spec: Spec,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        positions: Literal["rotary", "learned", "alibi"] = "rotary",
        dropout: float = 0.0,
        kv_heads: int | None = None,
        norm: Literal["layer", "rms"] = "layer",
        norm_first: bool = True,
        mlp: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu",
        mlp_width: int | None = None,
        bias: bool = True,
        tied: bool = False,
        band: int | None = None,
        start_token: int | None = None,
        rotary_base: float = 10000.0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(spec)
        hidden = 4 * width if mlp_width is None else mlp_width
        shared = heads if kv_heads is None else kv_heads
        check_sizes(width=width, depth=depth, heads=heads, dropout=dropout)
        check_sizes(kv_heads=shared, mlp_width=hidden, band=1 if band is None else band)
        check_heads(width, heads, shared)
        if start_token is not None:
            fits = 0 <= start_token < spec.vocab_size
            mend = f"choose 0 to {spec.vocab_size - 1}"
            require(fits, "model.net.start_token", start_token, mend)
        self.width, self.depth, self.heads, self.kv_heads = width, depth, heads, kv_heads
        self.positions, self.dropout, self.norm, self.norm_first = (
            positions,
            dropout,
            norm,
            norm_first,
        )
        self.mlp, self.mlp_width, self.bias, self.tied = mlp, mlp_width, bias, tied
        self.band, self.start_token = band, start_token
        self.rotary_base, self.norm_eps = rotary_base, norm_eps

        def normalise() -> nn.Module:
            if norm == "rms":
                return nn.RMSNorm(width, eps=norm_eps)
            return nn.LayerNorm(width, eps=norm_eps, bias=bias)

        self.embed = nn.Embedding(spec.vocab_size, width)
        self.start_vector = None if start_token is not None else nn.Parameter(torch.empty(width))
        self.label = Label(spec, width)
        self.position_vectors = None
        if positions == "learned":
            self.position_vectors = nn.Parameter(torch.empty(spec.length, width))
        table = rotary_table(spec.length, width // heads, rotary_base)
        self.register_buffer("rotary", table if positions == "rotary" else None, persistent=False)
        slopes = alibi_slopes(heads) if positions == "alibi" else None
        self.register_buffer("slopes", slopes, persistent=False)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                CausalSelfAttention(width, heads, dropout, shared, bias),
                MLP(width, hidden, mlp, bias),
                [normalise(), normalise()],
                norm_first,
            )
            for _ in range(depth)
        )
        self.last_norm = normalise() if norm_first else nn.Identity()
        self.head = nn.Linear(width, spec.vocab_size, bias=bias and not tied)
        if tied:
            self.head.weight = self.embed.weight
        self._initialise()

    def _initialise(self) -> None:
        """GPT-2: N(0, 0.02), the last layer of a residual branch scaled by 1 / sqrt(2 depth)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name and "label" not in name:
                branch_end = name.endswith("out.weight")
                scale = 1 / math.sqrt(2 * self.depth) if branch_end else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    @property
    def max_length(self) -> int | None:
        return None if self.positions == "alibi" else self.spec.length

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        x = torch.cat([self._begin(len(tokens), context), self.embed(tokens)[:, :-1]], dim=1)
        length = tokens.shape[1]
        if self.position_vectors is not None:
            x = x + self.position_vectors[:length]
        rotary = None if self.rotary is None else self.rotary[:, :length]
        at = torch.arange(length, device=x.device)
        dense = None if self.slopes is None else attention_bias(at, at, self.slopes)
        banded = None if self.band is None else attention_bias(at, at, self.slopes, self.band)
        x = self.drop(x)
        for index, block in enumerate(self.blocks):
            x = block(x, rotary, banded if self.band and index % 2 else dense)
        return self.head(self.last_norm(x))

    def _begin(self, batch: int, context: Tensor | None) -> Tensor:
        """What position 0 reads, (B, 1, width)."""
        start: Any = self.start_vector
        if self.start_token is not None:
            start = self.embed.weight[self.start_token]
        return (start + self.label.vector(context)).expand(batch, -1)[:, None]

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, TransformerState]:
        caches = tuple(block.attention.cache(batch, length) for block in self.blocks)
        position = torch.zeros(batch, dtype=torch.long, device=device_of(self))
        x = self._begin(batch, context)
        logits, state = self._step(x, TransformerState(caches, position))
        return logits[:, 0], state

    def advance(self, tokens: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        return self._step(self.embed(tokens), state)

    def _step(self, x: Tensor, state: TransformerState) -> tuple[Tensor, TransformerState]:
        """New positions (B, S, width) -> logits (B, S, V) and the state that holds them."""
        batch, new, _ = x.shape
        positions = state.position[:, None] + torch.arange(new, device=x.device)  # (B, S)
        if self.position_vectors is not None:
            x = x + self.position_vectors[positions]
        rotary = None if self.rotary is None else self.rotary[:, positions].unsqueeze(2)
        _, kv_heads, length, _ = state.caches[0][0].shape
        biases = [
            attention_bias(positions, torch.arange(length, device=x.device), self.slopes, band)
            for band in ([None] if self.band is None else [None, self.band])
        ]
        biases = [bias.view(batch, -1, new, length).to(x.dtype) for bias in biases]
        lanes = torch.arange(batch * kv_heads, device=x.device).view(batch, kv_heads, 1)
        slots = (lanes * length + positions[:, None]).flatten()
        for index, (block, cache) in enumerate(zip(self.blocks, state.caches, strict=True)):
            x = block.step(x, cache, slots, biases[index % len(biases)], rotary)
        return self.head(self.last_norm(x)), TransformerState(state.caches, state.position + new)
