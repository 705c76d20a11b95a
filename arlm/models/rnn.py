"""Recurrent language models: tanh RNN, GRU and LSTM, with the regularisers of AWD-LSTM as options.

References:
    | Recurrent neural network based language model (Mikolov et al., 2010), tanh
    | https://www.fit.vut.cz/research/group/speech/public/publi/2010/mikolov_interspeech2010_IS100722.pdf
    | Learning Phrase Representations using RNN Encoder-Decoder (Cho et al., 2014), GRU
    | https://arxiv.org/abs/1406.1078
    | Long Short-Term Memory (Hochreiter, Schmidhuber, 1997)
    | https://www.bioinf.jku.at/publications/older/2604.pdf
    | Recurrent Neural Network Regularization (Zaremba, Sutskever, Vinyals, 2014), dropout
    | https://arxiv.org/abs/1409.2329
    | Regularizing and Optimizing LSTM Language Models (Merity, Keskar, Socher, 2018), AWD-LSTM
    | https://arxiv.org/abs/1708.02182
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arlm.core import Scores, Spec
from arlm.errors import require
from arlm.layers.checks import check_sizes
from arlm.layers.features import MAX_LOGITS, FeatureAutoregressor
from arlm.layers.fused_lstm import is_faster, lstm
from arlm.layers.recurrent import StatefulAutoregressor
from arlm.layers.segments import by_segments
from arlm.states import ChunkState, State


@dataclass(frozen=True)
class RecurrentState(State):
    """The state of each layer after the last token."""

    layers: tuple[tuple[Tensor, ...], ...]  # (hidden,), or (hidden, cell) for LSTM: (B, width) each


class RecurrentLanguageModel(FeatureAutoregressor, StatefulAutoregressor):
    """h_t = cell(embed(x_{t-1}), h_{t-1}), in layers; logits_t = W h_t + b; embed(x_{-1}) is a learned vector.

    Rows may have any length. Without the options after `tied`, dropout is applied as by Zaremba et al.: to
    the inputs, between the layers and before the head, but not to the recurrence.

    Args:
        spec: of the data; any shape, in raster order.
        width: features of the hidden state.
        depth: stacked layers.
        embedding: size of the embedding; by default `width`.
        dropout: probability of zeroing a feature before the head, in [0, 1); AWD-LSTM's `dropout`.
        tied: the head's weights are the embedding's; the last layer then has the embedding's size.
        input_dropout: probability for embedded tokens, by default `dropout`; AWD-LSTM's `dropouti`.
        hidden_dropout: probability for features between layers, by default `dropout`; AWD-LSTM's `dropouth`.
        embedding_dropout: probability of zeroing the embedding of a token of the vocabulary; `dropoute`.
        variational: one dropout mask for all the tokens of a row (Gal, Ghahramani, 2016).
        weight_drop: probability of zeroing a recurrent weight (DropConnect); `wdrop`.
        activation_penalty: factor of the penalty mean h^2 of the last layer, after dropout; `alpha`.
        slowness_penalty: factor of the penalty mean (h_t - h_{t-1})^2 of the last layer; `beta`.
        max_logits: logits that scoring holds at once; larger batches are scored in blocks of tokens.
        trained_state: the states before the first token are trained vectors, and not zero.

    Shapes: tokens (B, T) -> logits (B, T, V).
    """

    cell: ClassVar[Callable[..., nn.RNNBase]]
    run: ClassVar[Callable[..., Any]]  # functional form of the cell, with weights as arguments
    layers: Any

    def __init__(
        self,
        spec: Spec,
        width: int = 256,
        depth: int = 2,
        embedding: int | None = None,
        dropout: float = 0.0,
        tied: bool = False,
        input_dropout: float | None = None,
        hidden_dropout: float | None = None,
        embedding_dropout: float = 0.0,
        variational: bool = False,
        weight_drop: float = 0.0,
        activation_penalty: float = 0.0,
        slowness_penalty: float = 0.0,
        max_logits: int = MAX_LOGITS,
        trained_state: bool = False,
    ) -> None:
        super().__init__(spec, max_logits)
        size = width if embedding is None else embedding
        check_sizes(width=width, depth=depth, embedding=size, dropout=dropout)
        probabilities = {
            "input_dropout": input_dropout,
            "hidden_dropout": hidden_dropout,
            "embedding_dropout": embedding_dropout,
            "weight_drop": weight_drop,
        }
        for name, probability in probabilities.items():
            fits = probability is None or 0 <= probability < 1
            require(fits, f"model.net.{name}", probability, "choose from 0 up to below 1")
        self.width, self.depth = width, depth
        self.dropout, self.input_dropout = dropout, input_dropout
        self.hidden_dropout, self.embedding_dropout = hidden_dropout, embedding_dropout
        self.variational, self.weight_drop = variational, weight_drop
        self.activation_penalty, self.slowness_penalty = activation_penalty, slowness_penalty
        self.embed = nn.Embedding(spec.vocab_size, size)
        self.start_vector = nn.Parameter(torch.zeros(size).normal_(std=0.1))
        widths = [width] * (depth - 1) + [size if tied else width]
        self.layers = nn.ModuleList(
            type(self).cell(before, after, batch_first=True)
            for before, after in zip([size, *widths], widths, strict=False)
        )
        self.initial_state = None
        if trained_state:  # from zero, which is the untrained one
            parts = 2 if type(self).cell is nn.LSTM else 1
            self.initial_state = nn.ParameterList(torch.zeros(parts, size) for size in widths)
        self.head = nn.Linear(widths[-1], spec.vocab_size)
        if tied:
            nn.init.uniform_(self.embed.weight, -0.1, 0.1)
            self.head.weight = self.embed.weight

    def features(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self._read(self._inputs(tokens), None)[1]

    def score(self, tokens: Tensor, context: Tensor | None = None) -> Scores:
        return self._score(tokens, self._inputs(tokens), None)[0]

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, RecurrentState]:
        _, outputs, state = self._read(self._start(batch), None)
        return self.head(outputs)[:, 0], state

    def advance(
        self, tokens: Tensor, state: RecurrentState, lengths: Tensor | None = None
    ) -> tuple[Tensor, RecurrentState]:
        state.consume(self)
        return by_segments(self._advance, tokens, state, lengths, self.spec.vocab_size)

    def advance_features(
        self, tokens: Tensor, state: RecurrentState, lengths: Tensor | None = None
    ) -> tuple[Tensor, RecurrentState]:
        state.consume(self)
        return by_segments(self._advanced, tokens, state, lengths, self.head.in_features)

    def _advance(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        features, state = self._advanced(tokens, state)
        return self.head(features), state

    def _advanced(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        return self._read(self._embed(tokens), state)[1:]

    def score_chunk(
        self,
        tokens: Tensor,
        chunk_state: ChunkState | None = None,
        context: Tensor | None = None,
    ) -> tuple[Scores, ChunkState]:
        if chunk_state is None:
            scores, state = self._score(tokens, self._inputs(tokens), None)
        else:
            before: Any = chunk_state.state
            before.consume(self)
            inputs = self._embed(torch.cat([chunk_state.last, tokens[:, :-1]], dim=1))
            scores, state = self._score(tokens, inputs, before)
        return scores, ChunkState(tokens[:, -1:], state)

    def _start(self, batch: int) -> Tensor:
        return self.start_vector.expand(batch, 1, -1)

    def _embed(self, tokens: Tensor) -> Tensor:
        vectors = self.embed(tokens)
        if self.training and self.embedding_dropout:
            kept = F.dropout(vectors.new_ones(self.spec.vocab_size, 1), self.embedding_dropout)
            vectors = vectors * kept[tokens]
        return vectors

    def _inputs(self, tokens: Tensor) -> Tensor:
        """Inputs of the first layer: the start vector, then all tokens but the last, (B, T, embedding)."""
        return torch.cat([self._start(len(tokens)), self._embed(tokens)[:, :-1]], dim=1)

    def _drop(self, x: Tensor, probability: float | None) -> Tensor:
        probability = self.dropout if probability is None else probability
        if not self.variational:
            return F.dropout(x, probability, self.training)
        return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), probability, self.training)

    def _read(
        self, inputs: Tensor, state: RecurrentState | None
    ) -> tuple[Tensor, Tensor, RecurrentState]:
        """Inputs (B, S, embedding) -> outputs (B, S, width) before and after dropout, and the state."""
        x = self._drop(inputs, self.input_dropout)
        outputs, after = x, []
        for index, layer in enumerate(self.layers):
            before = self._initial(index, len(x)) if state is None else state.layers[index]
            outputs, memory = self._layer(layer, x, before)
            after.append(memory)
            last = index + 1 == self.depth
            x = self._drop(outputs, self.dropout if last else self.hidden_dropout)
        return outputs, x, RecurrentState(tuple(after), net=self.serial)

    def _initial(self, index: int, batch: int) -> tuple[Tensor, ...] | None:
        """The trained state of a layer before the first token, (batch, width) each; None is zero."""
        if self.initial_state is None:
            return None
        return tuple(part.repeat(batch, 1) for part in self.initial_state[index])

    def _layer(
        self, layer: nn.RNNBase, x: Tensor, before: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        zeros = x.new_zeros(len(x), layer.hidden_size)
        hidden = [zeros] * (2 if isinstance(layer, nn.LSTM) else 1)
        hidden = hidden if before is None else [part.to(x.dtype) for part in before]
        weights: list[Any] = list(layer._parameters.values())
        dropped = self.training and self.weight_drop
        if dropped:
            weights[1] = F.dropout(weights[1], self.weight_drop)  # the recurrent ones
        if isinstance(layer, nn.LSTM) and is_faster(x, layer.hidden_size):
            outputs, *memory = lstm(x, *hidden, weights, torch.get_autocast_dtype("cpu"))
            return outputs, tuple(memory)
        stacked = [part[None] for part in hidden]
        initial: Any = tuple(stacked) if isinstance(layer, nn.LSTM) else stacked[0]
        if dropped:
            # biases, layers, dropout, training, bidirectional, batch first
            outputs, *memory = type(self).run(x, initial, weights, True, 1, 0.0, True, False, True)
        else:
            outputs, last = layer(x, initial)
            memory = list(last) if isinstance(last, tuple) else [last]
        return outputs, tuple(part[0] for part in memory)

    def _score(
        self, tokens: Tensor, inputs: Tensor, state: RecurrentState | None
    ) -> tuple[Scores, RecurrentState]:
        """Scores (B, S) of tokens, with the penalties in training, and the state after them."""
        raw, dropped, state = self._read(inputs, state)
        log_prob = self.features_log_prob(dropped, tokens)
        if not (self.training and (self.activation_penalty or self.slowness_penalty)):
            return Scores(log_prob), state
        penalty = self.activation_penalty * dropped.float().square().mean(-1)
        slow = raw.float().diff(dim=1).square().mean(-1)
        return Scores(log_prob, penalty + self.slowness_penalty * F.pad(slow, (1, 0))), state


class RNNLanguageModel(RecurrentLanguageModel):
    """h_t = tanh(W x_t + U h_{t-1} + b); the arguments are those of RecurrentLanguageModel."""

    cell, run = nn.RNN, staticmethod(torch.rnn_tanh)


class GRULanguageModel(RecurrentLanguageModel):
    """Gated recurrent units: an update and a reset gate; arguments as RecurrentLanguageModel's."""

    cell, run = nn.GRU, staticmethod(torch.gru)


class LSTMLanguageModel(RecurrentLanguageModel):
    """Input, forget and output gates around a cell; arguments as RecurrentLanguageModel's."""

    cell, run = nn.LSTM, staticmethod(torch.lstm)
