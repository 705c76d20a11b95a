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
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arlm.core import Spec, device_of
from arlm.errors import UserError, require
from arlm.layers.activation_checkpointing import run_block
from arlm.layers.attention import CausalSelfAttention, causal_mask
from arlm.layers.blocks import Block
from arlm.layers.checks import check_heads, check_sizes
from arlm.layers.class_embedding import ClassEmbedding
from arlm.layers.features import MAX_LOGITS, FeatureAutoregressor
from arlm.layers.kv_cache import CachedState, KVCache
from arlm.layers.mlp import MLP
from arlm.layers.positional_encoding import AlibiSlopes, rotary_table
from arlm.layers.prefix import trained_prefix
from arlm.layers.segments import without_ignored
from arlm.states import read_lengths


class TransformerLanguageModel(FeatureAutoregressor):
    """Position t depends on [start, x_0, ..., x_{t-1}] and scores x_t; a class label is added to the start.

    On the pixels of an image, this is ImageGPT (Chen et al., 2020). `configs/model/gpt2.yaml` and
    `llama.yaml` describe the published models' layouts.

    Args:
        spec: of the data; any shape, in raster order. Rows have at most `spec.length` tokens (any number
            with ALiBi).
        width: features of every position.
        depth: blocks.
        heads: attention heads; divides `width`.
        positions: "rotary" rotates queries and keys; "learned" adds a vector for each position; "alibi"
            subtracts a multiple of the distance from attention scores.
        dropout: probability of zeroing a feature or an attention weight, in [0, 1).
        kv_heads: heads of keys and values, by default `heads`; divides it.
        norm: "layer" or "rms".
        norm_first: pre-norm; otherwise post-norm, without a norm before the head.
        mlp: "gelu", "gelu_tanh" or "swiglu".
        mlp_width: hidden features of an MLP, by default 4 times `width`.
        bias: whether linear maps and LayerNorm have a bias.
        qkv_bias: whether the map to queries, keys and values has a bias; by default as `bias` (Qwen differs).
        tied: the head's weights are the embedding's, and it has no bias.
        sliding_window: positions that a query sees in windowed blocks, its own included; None for all.
        windowed_blocks: "all" (Mistral), or "alternate": every second block, from the second (GPT-3).
        start_token: the token whose embedding is the input of position 0; by default a learned vector.
        rotary_base: longest wavelength of rotary positions over 2 pi.
        norm_eps: added to the variance in a norm.
        activation_checkpointing: compute the activations of blocks again in the backward pass instead of keeping
            them: less memory, one more forward pass, the same gradients.
        max_logits: logits that scoring holds at once; larger batches are scored in blocks of tokens.
        prompt_vectors: trained input vectors at positions before the row (prompt tuning); see `arlm.layers.prefix`.
        prefix_vectors: trained keys and values of every block at positions before the row (prefix tuning).

    Shapes: tokens (B, T), context (B, 1) or None -> logits (B, T, V).
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
        positions: Literal["rotary", "learned", "alibi"] = "rotary",
        dropout: float = 0.0,
        kv_heads: int | None = None,
        norm: Literal["layer", "rms"] = "layer",
        norm_first: bool = True,
        mlp: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu",
        mlp_width: int | None = None,
        bias: bool = True,
        tied: bool = False,
        sliding_window: int | None = None,
        windowed_blocks: Literal["all", "alternate"] = "all",
        qkv_bias: bool | None = None,
        start_token: int | None = None,
        rotary_base: float = 10000.0,
        norm_eps: float = 1e-5,
        activation_checkpointing: bool = False,
        max_logits: int = MAX_LOGITS,
        prompt_vectors: int = 0,
        prefix_vectors: int = 0,
    ) -> None:
        super().__init__(spec, max_logits)
        hidden = 4 * width if mlp_width is None else mlp_width
        shared = heads if kv_heads is None else kv_heads
        check_sizes(width=width, depth=depth, heads=heads, dropout=dropout)
        check_sizes(kv_heads=shared, mlp_width=hidden)
        check_sizes(sliding_window=1 if sliding_window is None else sliding_window)
        check_heads(width, heads, shared)
        if start_token is not None:
            fits = 0 <= start_token < spec.vocab_size
            mend = f"choose 0 to {spec.vocab_size - 1}"
            require(fits, "model.net.start_token", start_token, mend)
        self.depth, self.positions, self.start_token = depth, positions, start_token
        self.sliding_window, self.windowed_blocks = sliding_window, windowed_blocks
        self.activation_checkpointing = activation_checkpointing

        def normalise() -> nn.Module:
            if norm == "rms":
                return nn.RMSNorm(width, eps=norm_eps)
            return nn.LayerNorm(width, eps=norm_eps, bias=bias)

        self.embed = nn.Embedding(spec.vocab_size, width)
        self.start_vector = None if start_token is not None else nn.Parameter(torch.empty(width))
        self.label = ClassEmbedding(spec, width)
        self.position_vectors = None
        if positions == "learned":
            self.position_vectors = nn.Parameter(torch.empty(spec.length, width))
        table = rotary_table(spec.length, width // heads, rotary_base)
        self.register_buffer("rotary", table if positions == "rotary" else None, persistent=False)
        self.alibi = AlibiSlopes(heads) if positions == "alibi" else None
        self.trained_prefix = trained_prefix(
            prompt_vectors, prefix_vectors, width, depth, heads, shared, rotary_base, positions
        )
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                CausalSelfAttention(width, heads, dropout, shared, bias, qkv_bias),
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

    def features(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        length, longest = tokens.shape[1], self.max_length
        if longest is not None and length > longest:
            raise UserError(
                f"tokens: rows of {length} do not fit the network, which takes at most {longest}; "
                "shorten them, or build it with a longer spec"
            )
        x = torch.cat([self._begin(len(tokens), context), self.embed(tokens)[:, :-1]], dim=1)
        if self.position_vectors is not None:
            x = x + self.position_vectors[:length]
        rotary = None if self.rotary is None else self.rotary[:, :length]
        positions = torch.arange(length, device=x.device)
        slopes = None if self.alibi is None else self.alibi.slopes
        prefix, before = self._prefix()
        keys = torch.arange(-before, length, device=x.device)
        # None is the plain causal mask, which is built into the fused kernel.
        masks: dict[int | None, Tensor | None] = {
            window: None
            if window is slopes is None and not before
            else causal_mask(positions, keys, slopes, window)
            for window in {self._window(index) for index in range(self.depth)}
        }
        x = self.drop(x)
        for index, block in enumerate(self.blocks):
            mask, own = masks[self._window(index)], prefix[index] if before else None
            x = run_block(block, self.activation_checkpointing, x, rotary, mask, own)
        return self.last_norm(x)

    def _prefix(self) -> tuple[tuple[KVCache, ...], int]:
        """Trained keys and values before the row, of each block, and their number."""
        if self.trained_prefix is None:
            return (), 0
        slopes = None if self.alibi is None else self.alibi.slopes
        windows = [self._window(index) for index in range(self.depth)]
        return self.trained_prefix(self.blocks, slopes, windows), self.trained_prefix.size

    def _window(self, index: int) -> int | None:
        """The sliding window of a block, or None if it attends to all earlier positions."""
        windowed = self.windowed_blocks == "all" or index % 2 == 1
        return self.sliding_window if windowed else None

    def _begin(self, batch: int, context: Tensor | None) -> Tensor:
        """Input of position 0, (B, 1, width)."""
        start: Any = self.start_vector
        if self.start_token is not None:
            start = self.embed.weight[self.start_token]
        return (start + self.label.vector(context)).expand(batch, -1)[:, None]

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, CachedState]:
        caches = tuple(block.attention.kv_cache(batch, length) for block in self.blocks)
        position = torch.zeros(batch, dtype=torch.long, device=device_of(self))
        prefix, _ = self._prefix()
        state = CachedState(caches, position, 0, length, prefix=prefix, net=self.serial)
        features, state = self._step(self._begin(batch, context), state, None)
        return self.logits(features)[:, 0], state

    def advance(
        self, tokens: Tensor, state: CachedState, lengths: Tensor | None = None
    ) -> tuple[Tensor, CachedState]:
        features, state = self.advance_features(tokens, state, lengths)
        return self.logits(features), state

    def advance_features(
        self, tokens: Tensor, state: CachedState, lengths: Tensor | None = None
    ) -> tuple[Tensor, CachedState]:
        state.consume(self)
        if lengths is not None:
            lengths = read_lengths(tokens, lengths)
            tokens = without_ignored(tokens, lengths)
        return self._step(self.embed(tokens), state, lengths)

    def _step(
        self, x: Tensor, state: CachedState, lengths: Tensor | None
    ) -> tuple[Tensor, CachedState]:
        """Inputs of new positions (B, S, width) -> features (B, S, F), and the state with these positions."""
        batch, new, _ = x.shape
        slots, after = state.reserve(new, lengths)
        if self.position_vectors is not None:
            x = x + self.position_vectors[slots.positions]
        rotary = None if self.rotary is None else self.rotary[:, slots.positions].unsqueeze(2)
        before = self.trained_prefix.size if self.trained_prefix else 0
        keys = torch.arange(-before, slots.filled, device=x.device)
        slopes = None if self.alibi is None else self.alibi.slopes
        masks = {
            window: causal_mask(slots.positions, keys, slopes, window)
            .view(batch, -1, new, before + slots.filled)
            .to(x.dtype)
            for window in {self._window(index) for index in range(self.depth)}
        }
        for index, (block, cache) in enumerate(zip(self.blocks, after.caches, strict=True)):
            own = after.prefix[index] if before else None
            x = block.step(x, cache, slots, masks[self._window(index)], rotary, own)
        return self.last_norm(x), after
