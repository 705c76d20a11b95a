"""BERT: a transformer encoder over masked text, which predicts the masked tokens from both sides.

References:
    | BERT: Pre-training of Deep Bidirectional Transformers (Devlin et al., 2019) | https://arxiv.org/abs/1810.04805
    | RoBERTa (Liu et al., 2019), without embeddings of segments | https://arxiv.org/abs/1907.11692
    | T5 (Raffel et al., 2020), relative positions | https://arxiv.org/abs/1910.10683
    | On Layer Normalization in the Transformer Architecture (Xiong et al., 2020), pre-norm
    | https://arxiv.org/abs/2002.04745
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arlm.core import Spec
from arlm.layers.activation_checkpointing import run_block
from arlm.layers.attention import MultiHeadAttention
from arlm.layers.blocks import EncoderBlock, Residual
from arlm.layers.checks import check_heads, check_sizes
from arlm.layers.context_reader import ContextReader
from arlm.layers.encoder import padding_bias
from arlm.layers.features import MAX_LOGITS
from arlm.layers.mlp import MLP
from arlm.layers.positional_encoding import SinusoidalEncoding, alibi_slopes, sinusoids

TURNED = 2.0  # nats by which a head prefers one side at the start


class BERT(ContextReader):
    """Every position attends to the whole context; then a linear map with GELU and norm, and the head.

    It differs from Devlin's in that segments have no embedding (a separator is between them), and by default in
    pre-norm, which trains without a long warm-up.

    Args:
        spec: of the data: rows, and their masked form as context.
        width: features of every position.
        depth: blocks.
        heads: attention heads; `width` / `heads` is even.
        mlp_width: hidden features of an MLP, by default 4 times `width`.
        mlp: "gelu", "relu" or "swiglu".
        norm_first: pre-norm; otherwise post-norm, without a norm after the last block.
        positions: "relative": a learned bias of attention for each head and distance, as in T5, shared by all blocks. It
            begins as ALiBi's penalty, with half of the heads turned to the left and half to the right. "learned" vectors,
            which begin as sinusoids, or "sinusoidal", are added to embeddings; with them, a small network of
            characters takes long to find the neighbours of a mask.
        dropout: probability of zeroing a feature of embeddings and of residual branches, in [0, 1).
        attention_dropout: probability of zeroing an attention weight, in [0, 1).
        tied: the head's weights are the embeddings of the context's tokens.
        activation_checkpointing: compute the activations of blocks again in the backward pass instead of keeping
            them: less memory, one more forward pass, the same gradients.
        max_logits: logits that scoring holds at once; larger batches are scored in blocks of tokens.

    Shapes: tokens (B, T), which are not read, and context (B, S) -> logits (B, T, V).
    """

    encoder: Any

    def __init__(
        self,
        spec: Spec,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        mlp_width: int | None = None,
        mlp: Literal["gelu", "relu", "swiglu"] = "gelu",
        norm_first: bool = True,
        positions: Literal["relative", "learned", "sinusoidal"] = "relative",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        tied: bool = True,
        activation_checkpointing: bool = False,
        max_logits: int = MAX_LOGITS,
    ) -> None:
        hidden = 4 * width if mlp_width is None else mlp_width
        check_sizes(width=width, depth=depth, heads=heads, dropout=dropout, mlp_width=hidden)
        check_sizes(attention_dropout)
        check_heads(width, heads, heads)
        super().__init__(spec, width, tied, max_logits)
        self.width, self.activation_checkpointing = width, activation_checkpointing
        self.positions = positions
        if positions == "relative":
            self.distance_bias = nn.Parameter(turned_slopes(heads, self.longest))
        elif positions == "learned":
            self.position_vectors = nn.Parameter(sinusoids(self.longest, width).float())
        else:
            self.sinusoids = SinusoidalEncoding(self.longest, width)
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(
            EncoderBlock(
                MultiHeadAttention(width, heads, attention_dropout, "context"),
                MLP(width, hidden, mlp),
                [Residual(width, norm_first, dropout) for _ in range(2)],
            )
            for _ in range(depth)
        )
        self.encoder_norm = nn.LayerNorm(width) if norm_first else nn.Identity()
        self._initialise()

    def _initialise(self) -> None:
        """Glorot initialisation for matrices, N(0, 1 / width) for embeddings, which `encode` scales."""
        for name, parameter in self.named_parameters():
            if name in ("position_vectors", "distance_bias"):
                continue
            if name.startswith(("embed_source", "weight")):
                nn.init.normal_(parameter, std=self.width**-0.5)
            elif parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        length = x.shape[1]
        x, bias = x * math.sqrt(self.width), padding_bias(lengths, length)
        if self.positions == "relative":
            positions = torch.arange(length, device=x.device)
            distance = positions[:, None] - positions
            bias = bias[:, None, None] + self.distance_bias[:, distance + self.longest - 1]
        else:
            learned = self.positions == "learned"
            table = self.position_vectors if learned else self.sinusoids.table
            x = x + table[:length].to(x.dtype)
        x = self.drop(x)
        for block in self.encoder:
            x = run_block(block, self.activation_checkpointing, x, bias)
        return self.encoder_norm(x)


def turned_slopes(heads: int, longest: int) -> Tensor:
    """A penalty for each head and distance i - j between -(longest - 1) and longest - 1: (heads, 2 longest - 1).

    It is ALiBi's slope times the distance, and a further TURNED on one side: the right in even heads, the left in odd.
    """
    distance = torch.arange(1 - longest, longest)
    side = torch.stack([distance < 0, distance > 0])[torch.arange(heads) % 2]
    return -alibi_slopes(heads)[:, None] * distance.abs() - TURNED * side
