"""Transformer language model: the decoder-only, pre-norm GPT.

References:
    | Language Models are Unsupervised Multitask Learners (Radford et al., 2019), GPT-2
    | https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
    | On Layer Normalization in the Transformer Architecture (Xiong et al., 2020), pre-norm
    | https://arxiv.org/abs/2002.04745
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arlm.core import Autoregressor, Spec, State, check_sizes, device_of
from arlm.errors import UserError
from arlm.layers.attention import Cache, CausalSelfAttention, rotary_table
from arlm.layers.label import Label


@dataclass(frozen=True)
class TransformerState(State):
    """Keys and values of every block, and the number of positions that they hold."""

    caches: tuple[Cache, ...]
    position: Tensor  # (B,) int64


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalSelfAttention(width, heads, dropout)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, rotary: Tensor | None) -> Tensor:
        x = x + self.drop(self.attention(self.attention_norm(x), rotary))
        return x + self.drop(self.mlp(self.mlp_norm(x)))

    def step(
        self, x: Tensor, cache: Cache, slots: Tensor, visible: Tensor, rotary: Tensor | None
    ) -> Tensor:
        x = x + self.attention.step(self.attention_norm(x), cache, slots, visible, rotary)
        return x + self.mlp(self.mlp_norm(x))


class TransformerLanguageModel(Autoregressor):
    """Position t reads [start, x_0, ..., x_{t-1}] and scores x_t; a class label adds to the start.

    Over the pixels of an image it is ImageGPT (Chen et al., 2020).

    Args:
        spec: what the data is; any shape, read in raster order. Rows hold at most `spec.length` tokens.
        width: features of every position.
        depth: blocks.
        heads: attention heads; divides `width`.
        positions: "rotary" turns queries and keys; "learned" adds a vector for each position.
        dropout: probability of zeroing a feature, in [0, 1).

    Shapes: tokens (B, T), context (B, 1) or None -> logits (B, T, V).
    """

    uses_context = True
    rotary: Tensor | None
    blocks: Any  # nn.ModuleList does not tell what it holds

    def __init__(
        self,
        spec: Spec,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        positions: Literal["rotary", "learned"] = "rotary",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        check_sizes(width=width, depth=depth, heads=heads, dropout=dropout)
        if width % (2 * heads):
            raise UserError(
                f"model.net.width: {width} does not divide into {heads} heads of an even size; "
                f"choose a multiple of {2 * heads}"
            )
        self.width, self.depth, self.heads = width, depth, heads
        self.positions, self.dropout = positions, dropout
        self.embed = nn.Embedding(spec.vocab_size, width)
        self.start_vector = nn.Parameter(torch.empty(width))
        self.label = Label(spec, width)
        self.position_vectors = None
        table = None
        if positions == "learned":
            self.position_vectors = nn.Parameter(torch.empty(spec.length, width))
        else:
            table = rotary_table(spec.length, width // heads)
        self.register_buffer("rotary", table, persistent=False)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, spec.vocab_size)
        self._initialise()

    def _initialise(self) -> None:
        """GPT-2: N(0, 0.02), the last layer of a residual branch scaled by 1 / sqrt(2 depth)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name and "label" not in name:
                branch_end = name.endswith(("attention.out.weight", "mlp.2.weight"))
                scale = 1 / math.sqrt(2 * self.depth) if branch_end else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        start = self._begin(len(tokens), context)
        x = torch.cat([start, self.embed(tokens)[:, :-1]], dim=1)
        length = tokens.shape[1]
        if self.position_vectors is not None:
            x = x + self.position_vectors[:length]
        rotary = None if self.rotary is None else self.rotary[:, :length]
        x = self.drop(x)
        for block in self.blocks:
            x = block(x, rotary)
        return self.head(self.norm(x))

    def _begin(self, batch: int, context: Tensor | None) -> Tensor:
        """What position 0 reads, (B, 1, width)."""
        return (self.start_vector + self.label.vector(context)).expand(batch, -1)[:, None]

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
        length = state.caches[0][0].shape[2]
        hidden = torch.arange(length, device=x.device) > positions[:, None, :, None]
        visible = torch.zeros(hidden.shape, dtype=x.dtype, device=x.device)
        visible = visible.masked_fill(hidden, -math.inf)
        lanes = torch.arange(batch * self.heads, device=x.device).view(batch, self.heads, 1)
        slots = (lanes * length + positions[:, None]).flatten()
        for block, cache in zip(self.blocks, state.caches, strict=True):
            x = block.step(x, cache, slots, visible, rotary)
        return self.head(self.norm(x)), TransformerState(state.caches, state.position + new)
