"""Prefix language model: one transformer whose attention is full over the source and causal over the row.

    source a b c, row x y       sees   a b c S x        S is the start vector, which scores x
                          a            o o o
                          b            o o o
                          c            o o o
                          S            o o o o
                          x            o o o o o

References:
    | Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (Raffel et al., 2020), 3.2.1
    | https://arxiv.org/abs/1910.10683
    | Unified Language Model Pre-training (Dong et al., 2019), UniLM's sequence-to-sequence mask
    | https://arxiv.org/abs/1905.03197
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from arlm.core import Spec, device_of
from arlm.layers.activation_checkpointing import run_block
from arlm.layers.attention import CausalSelfAttention, causal_mask
from arlm.layers.blocks import Block
from arlm.layers.checks import check_heads, check_sizes
from arlm.layers.encoder import padding_bias, read_sources, source_spec, tie_embeddings
from arlm.layers.features import MAX_LOGITS, FeatureAutoregressor
from arlm.layers.kv_cache import CachedState
from arlm.layers.mlp import MLP
from arlm.layers.positional_encoding import rotary_table
from arlm.layers.segments import without_ignored
from arlm.states import SHARED, check_room, read_lengths, rewound


@dataclass(frozen=True)
class PrefixCachedState(CachedState):
    """A key-value cache that begins with the source: slots 0 to `source` - 1, then the start vector."""

    source: Tensor  # (B,) int64, tokens of the source
    row_room: int = field(metadata=SHARED)  # tokens that a row may take

    @property
    def taken(self) -> Tensor:
        """Tokens of the row, (B,)."""
        return self.position - self.source - 1

    def rewind(self, counts: Tensor) -> Self:
        self._check_unused()
        rewound(self.taken, counts)  # never into the source
        return super().rewind(counts)

    def check_fits(self, rows: Tensor, other: Self) -> None:
        check_room(other.taken * 0, other.taken, self.row_room)
        super().check_fits(rows, other)

    def concatenated(self, others: Sequence[Self]) -> Self:
        room = max(state.row_room for state in (self, *others))
        return replace(super().concatenated(others), row_room=room)


class PrefixTransformer(FeatureAutoregressor):
    """A token of the source sees the whole source; position t of the row sees the source and [start, x_0 ... x_{t-1}].

    Args:
        spec: of the data; its context is the source sentences. Rows have at most `spec.length` tokens.
        width: features of every position.
        depth: blocks.
        heads: attention heads; `width` / `heads` is even.
        mlp_width: hidden features of an MLP, by default 4 times `width`.
        mlp: "gelu", "gelu_tanh" or "swiglu".
        norm_first: pre-norm; otherwise post-norm, without a norm before the head.
        positions: "rotary", or "learned" vectors; they are counted from the first token of the source.
        dropout: probability of zeroing a feature or an attention weight, in [0, 1).
        tied: the head's weights are the embedding of the row.
        shared: source and row have one embedding; by default if the data has a joint vocabulary.
        activation_checkpointing: compute the activations of blocks again in the backward pass instead of keeping
            them: less memory, one more forward pass, the same gradients.
        max_logits: logits that scoring holds at once; larger batches are scored in blocks of tokens.

    Shapes: tokens (B, T), context (B, S) -> logits (B, T, V).
    """

    uses_context = True
    rotary: Tensor | None
    embed: nn.Embedding
    blocks: Any  # nn.ModuleList has no element type

    def __init__(
        self,
        spec: Spec,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        mlp_width: int | None = None,
        mlp: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu",
        norm_first: bool = True,
        positions: Literal["rotary", "learned"] = "rotary",
        dropout: float = 0.0,
        tied: bool = True,
        shared: bool | None = None,
        activation_checkpointing: bool = False,
        max_logits: int = MAX_LOGITS,
    ) -> None:
        super().__init__(spec, max_logits)
        source = source_spec(spec)
        hidden = 4 * width if mlp_width is None else mlp_width
        check_sizes(width=width, depth=depth, heads=heads, dropout=dropout, mlp_width=hidden)
        check_heads(width, heads, heads)
        self.depth, self.longest_source = depth, source.length
        self.activation_checkpointing = activation_checkpointing
        self.embed = nn.Embedding(spec.vocab_size, width)
        self.embed_source = nn.Embedding(source.vocab_size, width)
        if spec.joint if shared is None else shared:
            tie_embeddings(spec, self.embed_source, self.embed)
        self.start_vector = nn.Parameter(torch.empty(width))
        longest = source.length + spec.length
        self.position_vectors = None
        if positions == "learned":
            self.position_vectors = nn.Parameter(torch.empty(longest, width))
        table = rotary_table(longest, width // heads)
        self.register_buffer("rotary", table if positions == "rotary" else None, persistent=False)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                CausalSelfAttention(width, heads, dropout),
                MLP(width, hidden, mlp),
                [nn.LayerNorm(width), nn.LayerNorm(width)],
                norm_first,
            )
            for _ in range(depth)
        )
        for block in self.blocks:
            block.attention.queries_of = block.attention.keys_of = "source and tokens"
        self.last_norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self.head = nn.Linear(width, spec.vocab_size, bias=not tied)
        if tied:
            self.head.weight = self.embed.weight
        self._initialise()

    def _initialise(self) -> None:
        """GPT-2: N(0, 0.02), the last layer of a residual branch scaled by 1 / sqrt(2 depth)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name:
                scale = 1 / math.sqrt(2 * self.depth) if name.endswith("out.weight") else 1.0
                nn.init.normal_(parameter, std=0.02 * scale)

    def features(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        context, lengths = self._sources(context)
        begin = self._begin(len(tokens))
        inputs = [self.embed_source(context), begin, self.embed(tokens)[:, :-1]]
        return self._run(torch.cat(inputs, dim=1), context.shape[1], lengths)[:, context.shape[1] :]

    def context_features(self, context: Tensor) -> Tensor:
        """Features of every token of the source, (B, S, width), which no token of the row changes."""
        context, lengths = self._sources(context)
        return self._run(self.embed_source(context), context.shape[1], lengths)

    def _run(self, x: Tensor, size: int, lengths: Tensor) -> Tensor:
        """Features of inputs (B, S + T, width) whose first S = `size` are sources of `lengths` (B,) tokens, padded."""
        slots = torch.arange(x.shape[1], device=x.device)
        # The row begins right behind the last token of its source.
        positions = torch.where(slots < size, slots, slots - size + lengths[:, None])
        hidden = causal_mask(slots, slots)
        of_source = padding_bias(lengths, size)[:, None]  # (B, 1, S)
        rest = hidden[None, :, size:].expand(len(x), -1, -1)
        mask = torch.cat([of_source.expand(-1, x.shape[1], -1), rest], dim=2)[:, None]
        if self.position_vectors is not None:
            x = x + self.position_vectors[positions]
        rotary = None if self.rotary is None else self.rotary[:, positions].unsqueeze(2)
        x = self.drop(x)
        for block in self.blocks:
            x = run_block(block, self.activation_checkpointing, x, rotary, mask)
        return self.last_norm(x)

    def _sources(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The sources without columns that are all padding, (B, S), and their lengths (B,)."""
        context, lengths = read_sources(self.spec, context)
        context = context[:, : int(lengths.max())]
        read_sources(self.spec, context, self.longest_source)
        return context, lengths

    def _begin(self, batch: int) -> Tensor:
        """The input that scores the first token of a row, (B, 1, width)."""
        return self.start_vector.expand(batch, 1, -1)

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, PrefixCachedState]:
        context, lengths = self._sources(context)
        # Room for the longest source, so that rows of any source can be joined.
        room = self.longest_source + length
        caches = tuple(block.attention.kv_cache(batch, room) for block in self.blocks)
        position = torch.zeros(batch, dtype=torch.long, device=device_of(self))
        state = PrefixCachedState(caches, position, 0, room, lengths, length - 1, net=self.serial)
        mask = padding_bias(lengths, context.shape[1])[:, None, None]
        _, state = self._step(self.embed_source(context), state, lengths, mask)
        features, state = self._step(self._begin(batch), state, None)
        return self.logits(features)[:, 0], state

    def advance(
        self, tokens: Tensor, state: PrefixCachedState, lengths: Tensor | None = None
    ) -> tuple[Tensor, PrefixCachedState]:
        features, state = self.advance_features(tokens, state, lengths)
        return self.logits(features), state

    def advance_features(
        self, tokens: Tensor, state: PrefixCachedState, lengths: Tensor | None = None
    ) -> tuple[Tensor, PrefixCachedState]:
        check_room(state.taken, read_lengths(tokens, lengths), state.row_room)
        state.consume(self)
        if lengths is not None:
            lengths = read_lengths(tokens, lengths)
            tokens = without_ignored(tokens, lengths)
        return self._step(self.embed(tokens), state, lengths)

    def _step(
        self,
        x: Tensor,
        state: PrefixCachedState,
        lengths: Tensor | None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, PrefixCachedState]:
        """Inputs of new positions (B, S, width) -> features (B, S, F), and the state with these positions.

        `mask` (B, 1, 1, S) is that of the sources, which see one another; without it attention is causal.
        """
        slots, after = state.reserve(x.shape[1], lengths)
        if mask is None:
            keys = torch.arange(slots.filled, device=x.device)
            mask = causal_mask(slots.positions, keys)[:, None]
        if self.position_vectors is not None:
            x = x + self.position_vectors[slots.positions]
        rotary = None if self.rotary is None else self.rotary[:, slots.positions].unsqueeze(2)
        mask = mask.expand(-1, -1, x.shape[1], -1).to(x.dtype)
        for block, cache in zip(self.blocks, after.caches, strict=True):
            x = block.step(x, cache, slots, mask, rotary)
        return self.last_norm(x), after
