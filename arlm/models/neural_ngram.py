"""Neural n-gram: a multi-layer perceptron over the last n - 1 tokens.

References:
    | A Neural Probabilistic Language Model (Bengio, Ducharme, Vincent, Jauvin, 2003)
    | https://www.jmlr.org/papers/v3/bengio03a.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arlm.core import Scores, Spec
from arlm.errors import require
from arlm.layers.checks import check_sizes
from arlm.layers.features import MAX_LOGITS, FeatureAutoregressor
from arlm.layers.recurrent import StatefulAutoregressor
from arlm.layers.segments import by_segments
from arlm.states import ChunkState, State


@dataclass(frozen=True)
class Recent(State):
    """The last n - 1 tokens, embedded."""

    vectors: Tensor  # (B, n - 1, embedding)


class NeuralNGram(FeatureAutoregressor, StatefulAutoregressor):
    """logits = b + W z + U tanh(d + H z), where z is the concatenation of the last n - 1 embedded tokens.

    Learned vectors replace the tokens before the first one. Rows may be of any length.

    Args:
        spec: of the data; any shape, in raster order.
        order: n, tokens in an n-gram: n - 1 inputs, and the token that is scored.
        embedding: features of a token.
        width: of the hidden layer.
        direct: whether there is a direct connection W from z to the logits.
        dropout: probability of zeroing a feature of z and of the hidden layer, in [0, 1).
        max_logits: logits that scoring holds at once; larger batches are scored in blocks of tokens.

    Shapes: tokens (B, T) -> logits (B, T, V).
    """

    def __init__(
        self,
        spec: Spec,
        order: int = 5,
        embedding: int = 64,
        width: int = 256,
        direct: bool = True,
        dropout: float = 0.0,
        max_logits: int = MAX_LOGITS,
    ) -> None:
        super().__init__(spec, max_logits)
        check_sizes(embedding=embedding, width=width, dropout=dropout)
        require(order >= 2, "model.net.order", order, "choose at least 2")
        self.order = order
        self.embed = nn.Embedding(spec.vocab_size, embedding)
        self.start_vectors = nn.Parameter(torch.randn(order - 1, embedding))
        self.hidden = nn.Linear((order - 1) * embedding, width)
        self.head = nn.Linear(width, spec.vocab_size)
        self.skip = None
        if direct:
            self.skip = nn.Linear((order - 1) * embedding, spec.vocab_size, bias=False)
        self.drop = nn.Dropout(dropout)

    def features(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self._read(self._start(len(tokens)), tokens)[0][:, :-1]

    def logits(self, features: Tensor) -> Tensor:
        if self.skip is None:
            return self.head(features)
        hidden, z = features.tensor_split([self.head.in_features], dim=-1)
        return self.head(hidden) + self.skip(z)

    def linear_map(self) -> tuple[Tensor, Tensor | None]:
        weights = [self.head.weight] if self.skip is None else [self.head.weight, self.skip.weight]
        return torch.cat(weights, dim=1), self.head.bias

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, Recent]:
        recent = self.start_vectors.repeat(batch, 1, 1)
        return self.logits(self._features(recent.flatten(1))), Recent(recent, net=self.serial)

    def advance(
        self, tokens: Tensor, state: Recent, lengths: Tensor | None = None
    ) -> tuple[Tensor, Recent]:
        state.consume(self)
        return by_segments(self._advance, tokens, state, lengths, self.spec.vocab_size)

    def _advance(self, tokens: Tensor, state: Recent) -> tuple[Tensor, Recent]:
        features, recent = self._read(state.vectors, tokens)
        return self.logits(features[:, 1:]), Recent(recent, net=self.serial)

    def score_chunk(
        self,
        tokens: Tensor,
        chunk_state: ChunkState | None = None,
        context: Tensor | None = None,
    ) -> tuple[Scores, ChunkState]:
        if chunk_state is None:
            features, recent = self._read(self._start(len(tokens)), tokens[:, :-1])
        else:
            before: Any = chunk_state.state
            before.consume(self)
            inputs = torch.cat([chunk_state.last, tokens[:, :-1]], dim=1)
            features, recent = self._read(before.vectors, inputs)
            features = features[:, 1:]
        scores = Scores(self.features_log_prob(features, tokens))
        return scores, ChunkState(tokens[:, -1:], Recent(recent, net=self.serial))

    def _start(self, batch: int) -> Tensor:
        return self.start_vectors.expand(batch, -1, -1)

    def _read(self, recent: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, S + 1, F) of tokens (B, S) and of the token after them, and the last n - 1 vectors."""
        before = self.order - 1
        vectors = torch.cat([recent, self.embed(tokens)], dim=1)
        windows = vectors.unfold(1, before, 1).mT.flatten(2)  # (B, S + 1, (n - 1) embedding)
        return self._features(windows), vectors[:, -before:]

    def _features(self, z: Tensor) -> Tensor:
        """Inputs of the logits' linear maps: the hidden layer, then z where it is connected directly."""
        z = self.drop(z)
        hidden = self.drop(self.hidden(z).tanh())
        return hidden if self.skip is None else torch.cat([hidden, z], dim=-1)
