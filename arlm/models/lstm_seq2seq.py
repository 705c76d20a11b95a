"""LSTM sequence to sequence, without attention, or with that of Bahdanau or Luong.

References:
    | Sequence to Sequence Learning with Neural Networks (Sutskever et al., 2014), without attention
    | https://arxiv.org/abs/1409.3215
    | Neural Machine Translation by Jointly Learning to Align and Translate (Bahdanau et al., 2015), additive
    | https://arxiv.org/abs/1409.0473
    | Effective Approaches to Attention-based Neural Machine Translation (Luong et al., 2015), dot, general
    | https://arxiv.org/abs/1508.04025
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arlm.core import Spec
from arlm.errors import UserError
from arlm.layers.checks import check_sizes
from arlm.layers.encoder import (
    LSTMEncoder,
    SourceAttention,
    Sources,
    SourceState,
    by_sentence,
    padding_bias,
    read_sources,
    reversed_rows,
    source_spec,
    tie_embeddings,
)
from arlm.layers.features import MAX_LOGITS, FeatureAutoregressor
from arlm.layers.head import logits_of
from arlm.layers.segments import by_segments
from arlm.states import grows

Memory = tuple[Tensor, Tensor]  # hidden state and cell of a layer, (B, width) each


@dataclass(frozen=True)
class LSTMSources(Sources):
    """What attention reads; nothing without attention."""

    keys: Tensor = field(metadata=grows(1))  # (N, S, width)
    memory: Tensor = field(metadata=grows(1))  # (N, S, encoder's features), the encoder's outputs


@dataclass(frozen=True)
class Seq2SeqState(SourceState):
    """The decoder's state."""

    layers: tuple[Memory, ...]
    fed: Tensor  # (B, width) with input feeding, the last readout; else (B, 0)


class LSTMSeq2Seq(FeatureAutoregressor):
    """An LSTM encodes the source; another LSTM decodes the target, starting from the encoder's final states.

    - none: the decoder depends on the source through its initial states only.
    - dot, general: the decoder runs first, then all its states attend at once, c_t = attend(s_t);
      readout_t = tanh(W [s_t; c_t]). With `feeding` it runs step by step, with readout_{t-1} as an input.
    - additive: s_t = LSTM([y_{t-1}; c_t], s_{t-1}) with c_t = attend(s_{t-1}), step by step;
      readout_t = tanh(W [s_t; c_t; y_{t-1}]), instead of the paper's maxout.

    Args:
        spec: of the data; its context is the source sentences.
        attention: the attention score, or "none".
        width: hidden features of the decoder.
        depth: layers of the encoder, and of the decoder.
        embedding: size of both embeddings.
        encoder_width: hidden features of each direction of the encoder; by default both have `width` in all.
        bidirectional: whether the encoder has a backward direction.
        reverse: the encoder reads the source from the last token to the first (Sutskever).
        feeding: the last readout is an input of the decoder (Luong's input feeding).
        dropout: probability of zeroing a feature of embeddings, between layers, of the encoder's outputs
            and of the readout, in [0, 1).
        tied: the head's weights are the target's embedding.
        shared: source and target have one embedding; needs a joint tokenizer.
        max_logits: logits that scoring holds at once; larger batches are scored in blocks of tokens.

    Shapes: tokens (B, T), context (B, S) -> logits (B, T, V).
    """

    uses_context = True
    layers: Any

    def __init__(
        self,
        spec: Spec,
        attention: Literal["none", "additive", "dot", "general"] = "general",
        width: int = 512,
        depth: int = 1,
        embedding: int = 256,
        encoder_width: int | None = None,
        bidirectional: bool = True,
        reverse: bool = False,
        feeding: bool = False,
        dropout: float = 0.0,
        tied: bool = True,
        shared: bool = False,
        max_logits: int = MAX_LOGITS,
    ) -> None:
        super().__init__(spec, max_logits)
        source, ways = source_spec(spec), 2 if bidirectional else 1
        each = max(1, width // ways) if encoder_width is None else encoder_width
        check_sizes(width=width, depth=depth, embedding=embedding, dropout=dropout)
        check_sizes(encoder_width=each)
        if feeding and attention not in ("dot", "general"):
            raise UserError(
                f"model.net.feeding: true has no effect with attention {attention}; "
                "choose dot or general, or feeding false"
            )
        self.attention, self.width, self.reverse, self.feeding = attention, width, reverse, feeding
        self.embed = nn.Embedding(spec.vocab_size, embedding)
        self.embed_source = nn.Embedding(source.vocab_size, embedding)
        if shared:
            tie_embeddings(spec, self.embed_source, self.embed)
        self.start_vector = nn.Parameter(torch.zeros(embedding).normal_(std=0.1))
        self.encoder = LSTMEncoder(embedding, each, depth, bidirectional, dropout)
        memory = ways * each
        # Sutskever's decoder starts from the encoder's states themselves, if the sizes agree.
        direct = attention == "none" and memory == width
        self.bridge = None if direct else nn.ModuleList(nn.Linear(memory, width) for _ in range(2))
        self.attend = None if attention == "none" else SourceAttention(attention, width, memory)
        fed = width if feeding else memory if attention == "additive" else 0
        self.layers = nn.ModuleList(
            nn.LSTM(size, width, batch_first=True)
            for size in [embedding + fed] + [width] * (depth - 1)
        )
        read = {"none": width, "additive": width + memory + embedding}
        size = embedding if tied else width
        self.readout = nn.Linear(read.get(attention, width + memory), width)
        self.project = nn.Linear(width, size, bias=False) if size != width else nn.Identity()
        self.head = nn.Linear(size, spec.vocab_size)
        if tied:
            self.head.weight = self.embed.weight
        self.drop = nn.Dropout(dropout)
        for table in (self.embed, self.embed_source):
            nn.init.normal_(table.weight, std=embedding**-0.5 if tied else 0.1)

    def features(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self._features(self._decode(self._inputs(tokens), self._encode(context))[0])

    def logits(self, features: Tensor) -> Tensor:
        return logits_of(self.head, features)

    def attention_weights(self, tokens: Tensor, context: Tensor | None = None) -> Tensor | None:
        if self.attend is None:
            return None
        return self._decode(self._inputs(tokens), self._encode(context))[1]

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, Seq2SeqState]:
        first = self.start_vector.expand(batch, 1, -1)
        readout, _, state = self._decode(first, self._encode(context))
        return self.logits(self._features(readout))[:, 0], state

    def advance(
        self, tokens: Tensor, state: Seq2SeqState, lengths: Tensor | None = None
    ) -> tuple[Tensor, Seq2SeqState]:
        state.consume(self)
        return by_segments(self._advance, tokens, state, lengths, self.spec.vocab_size)

    def _advance(self, tokens: Tensor, state: Seq2SeqState) -> tuple[Tensor, Seq2SeqState]:
        readout, _, state = self._decode(self.drop(self.embed(tokens)), state)
        return self.logits(self._features(readout)), state

    def _inputs(self, tokens: Tensor) -> Tensor:
        """The decoder's inputs: the start vector, then all tokens but the last, (B, T, embedding)."""
        first = self.start_vector.expand(len(tokens), 1, -1)
        return torch.cat([first, self.drop(self.embed(tokens))[:, :-1]], dim=1)

    def _features(self, readout: Tensor) -> Tensor:
        return self.project(self.drop(readout))

    def _encode(self, context: Tensor | None) -> Seq2SeqState:
        """Encode the sources (B, S) into the decoder's initial state."""
        context, lengths = read_sources(self.spec, context)
        rows = reversed_rows(context, lengths) if self.reverse else context
        memory, hidden, cell = self.encoder(self.drop(self.embed_source(rows)), lengths)
        if self.bridge is not None:
            hidden, cell = self.bridge[0](hidden).tanh(), self.bridge[1](cell).tanh()
        layers = tuple(zip(hidden.unbind(0), cell.unbind(0), strict=True))
        batch = len(memory)
        of = torch.arange(batch, device=memory.device)
        fed = memory.new_zeros(batch, self.width if self.feeding else 0)
        bias = padding_bias(lengths, context.shape[1])
        if self.attend is None:
            empty = memory[:, :0]
            sources = LSTMSources(bias[:, :0], empty, empty, net=self.serial)
        else:
            memory = self.drop(memory)
            sources = LSTMSources(bias, self.attend.keys(memory), memory, net=self.serial)
        return Seq2SeqState(sources, of, [], layers, fed, net=self.serial)

    def _decode(
        self, inputs: Tensor, state: Seq2SeqState
    ) -> tuple[Tensor, Tensor | None, Seq2SeqState]:
        """Inputs (B, T, embedding) -> readouts (B, T, width), weights (B, T, S), and the state."""
        state = state.side_by_side()
        if not (self.feeding or self.attention == "additive"):
            return self._together(inputs, state)
        readouts, weights = [], []
        for x in inputs.split(1, dim=1):
            step = self._fed if self.feeding else self._aligned
            readout, weight, state = step(x, state)
            readouts.append(readout)
            weights.append(weight)
        return torch.cat(readouts, dim=1), torch.cat(weights, dim=1), state

    def _run(self, x: Tensor, state: Seq2SeqState) -> tuple[Tensor, tuple[Memory, ...]]:
        """Run all layers over (B, T, size): outputs (B, T, width) of the last one, final states of all."""
        after = []
        for index, (layer, before) in enumerate(zip(self.layers, state.layers, strict=True)):
            x, last = layer(
                self.drop(x) if index else x, [part[None].to(x.dtype) for part in before]
            )
            after.append((last[0][0], last[1][0]))
        return x, tuple(after)

    def _together(
        self, inputs: Tensor, state: Seq2SeqState
    ) -> tuple[Tensor, Tensor | None, Seq2SeqState]:
        states, layers = self._run(inputs, state)
        weights = None
        if self.attend is not None:
            read, weights = self._attend(states, state)
            states = torch.cat([states, read], dim=-1)
        readout = self.readout(states).tanh()
        return readout, weights, replace(state, layers=layers)

    def _fed(self, x: Tensor, state: Seq2SeqState) -> tuple[Tensor, Tensor, Seq2SeqState]:
        states, layers = self._run(torch.cat([x, state.fed[:, None].to(x.dtype)], dim=-1), state)
        read, weights = self._attend(states, state)
        readout = self.readout(torch.cat([states, read], dim=-1)).tanh()
        return readout, weights, replace(state, layers=layers, fed=readout[:, 0])

    def _aligned(self, x: Tensor, state: Seq2SeqState) -> tuple[Tensor, Tensor, Seq2SeqState]:
        read, weights = self._attend(state.layers[-1][0][:, None], state)
        states, layers = self._run(torch.cat([x, read.to(x.dtype)], dim=-1), state)
        readout = self.readout(torch.cat([states, read, x], dim=-1)).tanh()
        return readout, weights, replace(state, layers=layers)

    def _attend(self, queries: Tensor, state: Seq2SeqState) -> tuple[Tensor, Tensor]:
        """Attend with queries (B, T, width): contexts (B, T, encoder's features), and weights (B, T, S)."""
        assert self.attend is not None
        sources = state.sources
        queries_of = by_sentence(queries, state.sentences)
        read, weights = self.attend(queries_of, sources.keys, sources.memory, sources.bias)
        return read.view(*queries.shape[:2], -1), weights.view(*queries.shape[:2], -1)
