"""Source sentences as context: padding masks, an LSTM encoder, and attention to its outputs.

References:
    | Neural Machine Translation by Jointly Learning to Align and Translate (Bahdanau et al., 2015)
    | https://arxiv.org/abs/1409.0473
    | Effective Approaches to Attention-based Neural Machine Translation (Luong et al., 2015)
    | https://arxiv.org/abs/1508.04025
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from arlm.core import Spec
from arlm.errors import UserError
from arlm.states import SHARED, State, concatenate, grows


def source_spec(spec: Spec) -> Spec:
    """The spec of the source sentences; raises a UserError if the data has none."""
    if spec.context is None or spec.context.kind != "sequence":
        raise UserError(
            "model.net: the network translates, but the data has no source sentences; "
            "choose data of pairs, such as configs/data/dates.yaml"
        )
    return spec.context


def read_sources(
    spec: Spec, context: Tensor | None, longest: int | None = None
) -> tuple[Tensor, Tensor]:
    """Check the source sentences.

    Args:
        spec: of the data.
        context: (B, S) int64, padded.
        longest: maximal S; None for no limit.

    Returns: the sources (B, S), and the length of each without padding, (B,) int64.
    """
    if context is None:
        raise UserError(
            "context: the network needs source sentences; use `arlm translate`, or give one for each row"
        )
    if longest is not None and context.shape[1] > longest:
        raise UserError(
            f"context: a source of {context.shape[1]} tokens does not fit the network, which holds "
            f"{longest}; split the sentence, or train with a larger data.length"
        )
    pad = source_spec(spec).pad_id
    assert pad is not None
    lengths = (context != pad).sum(1)
    if not bool(lengths.all()):
        raise UserError("context: a source sentence is empty; give at least one token")
    return context, lengths


def padding_bias(lengths: Tensor, longest: int) -> Tensor:
    """(B, longest): 0 at tokens, -inf at padding, to be added to attention scores."""
    inside = torch.arange(longest, device=lengths.device) < lengths[:, None]
    return torch.zeros((), device=lengths.device).where(inside, -math.inf)


def reversed_rows(x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the tokens of each row (B, S), and leave the padding in place."""
    positions = torch.arange(x.shape[1], device=x.device).expand_as(x)
    reversed_positions = lengths[:, None] - 1 - positions
    return x.gather(1, torch.where(reversed_positions >= 0, reversed_positions, positions))


def tie_embeddings(spec: Spec, source: nn.Embedding, target: nn.Embedding) -> None:
    """Use one table for both embeddings; raises a UserError unless both sides have the same vocabulary."""
    if not spec.joint:
        raise UserError(
            "model.net.shared: source and target have a tokenizer each; "
            "set data.joint true, or model.net.shared false"
        )
    source.weight = target.weight


@dataclass(frozen=True)
class Sources(State):
    """What a decoder attends to: N sentences. Subclasses add the keys and values of their tokens."""

    bias: Tensor = field(metadata=grows(1, fill=-math.inf))  # (N, S): 0 at tokens, -inf at padding


@dataclass(frozen=True)
class SourceState(State):
    """A state that stores a source sentence once for all its beams.

    Selecting rows selects in `sentence`, and drops the sources that no row needs.
    """

    sources: Any = field(metadata=SHARED)  # `Sources` of N sentences
    sentence: Tensor  # (B,) int64: the source of each row, an index into `sources`
    # Not empty if another state may hold the same `sources`: then `assign` has to copy them.
    lent: list[bool] = field(metadata=SHARED)

    def __getitem__(self, rows: Tensor | slice) -> Self:
        state = super().__getitem__(rows)
        kept, sentence = state.sentence.unique(return_inverse=True)
        if len(kept) == self.sentences:
            self.lent.append(True)
            return state
        return replace(state, sources=self.sources[kept], sentence=sentence, lent=[])

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        return replace(super().map(function), sources=self.sources.map(function), lent=[])

    def check_fits(self, rows: Tensor, other: Self) -> None:
        super().check_fits(rows, other)
        longest, room = other.sources.bias.shape[1], self.sources.bias.shape[1]
        if longest > room:
            raise UserError(
                f"context: a source of {longest} tokens does not fit the running batch, which has room for "
                f"{room}; start it with longer sources"
            )

    def _assigned(self, rows: Tensor, other: Self) -> Self:
        own = self._one_each()
        sources = own.sources._assigned(rows, other.sources[other.sentence])
        sentence = torch.arange(len(self.sentence), device=self.sentence.device)
        written = super(SourceState, own)._assigned(rows, other)
        return replace(written, sources=sources, sentence=sentence)

    def concatenated(self, others: Sequence[Self]) -> Self:
        states = (self, *others)
        sources = concatenate([state.sources for state in states])
        first = list(accumulate((state.sentences for state in states), initial=0))
        sentence = torch.cat([s.sentence + n for s, n in zip(states, first, strict=False)])
        joined = super().concatenated(others)
        return replace(joined, sources=sources, sentence=sentence, lent=[])

    @property
    def sentences(self) -> int:
        """Number of source sentences, N."""
        return len(self.sources.bias)

    def side_by_side(self) -> Self:
        """A state in which row i has source i // (B / N), as `by_sentence` needs it.

        If the rows are in another order, the sources are copied, one for each row.
        """
        if len(self.sentence) % self.sentences == 0:
            expected = torch.arange(self.sentences, device=self.sentence.device)[:, None]
            if bool((self.sentence.view(self.sentences, -1) == expected).all()):
                return self
        return self._with_copies()

    def _one_each(self) -> Self:
        """A state in which row i has source i, and no other state has these sources."""
        rows = torch.arange(len(self.sentence), device=self.sentence.device)
        if not self.lent and torch.equal(self.sentence, rows):
            return self
        return self._with_copies()

    def _with_copies(self) -> Self:
        rows = torch.arange(len(self.sentence), device=self.sentence.device)
        return replace(self, sources=self.sources[self.sentence], sentence=rows, lent=[])


def by_sentence(x: Tensor, sentences: int) -> Tensor:
    """(B, T, width) -> (sentences, beams * T, width): attention treats beams as further positions."""
    return x.reshape(sentences, -1, x.shape[-1])


class LSTMEncoder(nn.Module):
    """An LSTM over packed sequences, so that the backward direction starts at the last token, not at padding.

    Args:
        size: features of the inputs.
        width: features of each direction.
        depth: layers.
        bidirectional: whether there is a backward direction.
        dropout: probability of zeroing a feature between layers.
    """

    def __init__(
        self, size: int, width: int, depth: int, bidirectional: bool, dropout: float
    ) -> None:
        super().__init__()
        self.ways = 2 if bidirectional else 1
        between = dropout if depth > 1 else 0.0
        self.lstm = nn.LSTM(
            *(size, width, depth), batch_first=True, dropout=between, bidirectional=bidirectional
        )

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Args: x (B, S, size), lengths (B,).

        Returns: outputs (B, S, ways * width), zero at padding, and the final hidden states and cells of the
        layers, (depth, B, ways * width) each; ways is 2 if bidirectional, else 1.
        """
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        packed, last = self.lstm(packed)
        outputs, _ = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])
        hidden, cell = (
            part.unflatten(0, (-1, self.ways)).transpose(1, 2).flatten(2) for part in last
        )
        return outputs, hidden, cell


class SourceAttention(nn.Module):
    """The mean of the encoder's outputs, weighted for each query by a softmax of scores.

    dot: q k. general: q W k. additive: v tanh(U q + W k). The keys W k are computed once for a sentence.

    Args:
        kind: "dot", "general" or "additive".
        query: features of a query.
        memory: features of the encoder's outputs; "dot" needs as many as `query`.
    """

    queries_of, keys_of = "tokens", "context"

    def __init__(self, kind: str, query: int, memory: int) -> None:
        super().__init__()
        if kind == "dot" and query != memory:
            raise UserError(
                f"model.net.encoder_width: dot attention needs {query} features from the encoder, "
                f"which has {memory}; choose a matching width, or attention general"
            )
        self.kind = kind
        self.sentence_memory = (
            nn.Linear(memory, query, bias=False) if kind != "dot" else nn.Identity()
        )
        if kind == "additive":
            self.sentence_query = nn.Linear(query, query)
            self.score = nn.Linear(query, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """(B, S, memory) -> (B, S, query)."""
        return self.sentence_memory(memory)

    def forward(
        self, queries: Tensor, keys: Tensor, memory: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Args: queries (B, T, query), keys (B, S, query), memory (B, S, memory), bias (B, S).

        Returns: the weighted means (B, T, memory), and the weights (B, T, S).
        """
        if self.kind == "additive":
            sums = self.sentence_query(queries)[:, :, None] + keys[:, None]
            scores = self.score(sums.tanh()).squeeze(-1)
        else:
            scores = queries @ keys.mT
        weights = (scores + bias[:, None].to(scores.dtype)).softmax(-1).to(memory.dtype)
        return weights @ memory, weights

    def weights(self, *inputs: Tensor) -> Tensor:
        """The weights (B, 1, T, S) of `forward`, whose arguments it takes."""
        return self.forward(*inputs)[1][:, None]
