"""Neural n-gram: a multi-layer perceptron over the last n - 1 tokens.

References:
    | A Neural Probabilistic Language Model (Bengio, Ducharme, Vincent, Jauvin, 2003)
    | https://www.jmlr.org/papers/v3/bengio03a.html
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arlm.core import Spec
from arlm.errors import require
from arlm.layers.checks import check_sizes
from arlm.layers.recurrent import StatefulAutoregressor
from arlm.layers.segments import by_segments
from arlm.states import State


@dataclass(frozen=True)
class Recent(State):
    """The last n - 1 tokens, embedded."""

    vectors: Tensor  # (B, n - 1, embedding)


class NeuralNGram(StatefulAutoregressor):
    """logits = b + W z + U tanh(d + H z), where z is the concatenation of the last n - 1 embedded tokens.

    Learned vectors replace the tokens before the first one. Rows may be of any length.

    Args:
        spec: of the data; any shape, in raster order.
        order: n, tokens in an n-gram: n - 1 inputs, and the token that is scored.
        embedding: features of a token.
        width: of the hidden layer.
        direct: whether there is a direct connection W from z to the logits.
        dropout: probability of zeroing a feature of z and of the hidden layer, in [0, 1).

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
    ) -> None:
        super().__init__(spec)
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

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self._read(self._start(len(tokens)), tokens)[0][:, :-1]

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, Recent]:
        recent = self.start_vectors.repeat(batch, 1, 1)
        return self._logits(recent.flatten(1)), Recent(recent, net=self.serial)

    def advance(
        self, tokens: Tensor, state: Recent, lengths: Tensor | None = None
    ) -> tuple[Tensor, Recent]:
        state.consume(self)
        return by_segments(self._advance, tokens, state, lengths, self.spec.vocab_size)

    def _advance(self, tokens: Tensor, state: Recent) -> tuple[Tensor, Recent]:
        logits, recent = self._read(state.vectors, tokens)
        return logits[:, 1:], Recent(recent, net=self.serial)

    def _start(self, batch: int) -> Tensor:
        return self.start_vectors.expand(batch, -1, -1)

    def _read(self, recent: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, S + 1, V) of tokens (B, S) and of the token after them, and the last n - 1 vectors."""
        before = self.order - 1
        vectors = torch.cat([recent, self.embed(tokens)], dim=1)
        windows = vectors.unfold(1, before, 1).mT.flatten(2)  # (B, S + 1, (n - 1) embedding)
        return self._logits(windows), vectors[:, -before:]

    def _logits(self, z: Tensor) -> Tensor:
        z = self.drop(z)
        logits = self.head(self.drop(self.hidden(z).tanh()))
        return logits if self.skip is None else logits + self.skip(z)
