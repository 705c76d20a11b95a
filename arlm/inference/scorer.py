"""Scoring: batches in sequence with carried state, and whole splits with every token scored once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from arlm.core import Autoregressor, Batch, Scores, device_of
from arlm.data.dataset import Rows, TokenDataset
from arlm.errors import UserError
from arlm.evaluation.likelihood import figures
from arlm.evaluation.weights import scored_weights
from arlm.inference.placement import moved
from arlm.states import ChunkState, concatenate


@runtime_checkable
class ScoresChunks(Protocol):
    """A network that scores long rows chunk by chunk; see `arlm.layers.recurrent`."""

    def score_chunk(
        self,
        tokens: Tensor,
        chunk_state: ChunkState | None = None,
        context: Tensor | None = None,
    ) -> tuple[Scores, ChunkState]:
        """Scores (B, S) of a chunk that follows `chunk_state`, or starts a document; and the state after it."""


class BatchScorer:
    """Scores batches in sequence; a row that starts no document continues the same row of the previous batch.

    `batch.starts_document` says which rows start one; if it is None, all rows are independent. In training
    this is truncated back-propagation through time (TBPTT): the state is carried over, gradients are not.

        batch 0              batch 1              batch 2
        row 0  [A0 A1 A2] -> row 0  [A3 A4 A5] -> row 0  [C0 C1 C2]    starts_document: row 0
        row 1  [B0 B1 B2] -> row 1  [B3 B4 B5] -> row 1  [B6 B7 B8]

    Args:
        net: the network.
        compile: compile the scoring functions; the network's parameters and their names do not change.
        score: scores independent rows in place of `net.score`, e.g. with smoothed labels.
    """

    def __init__(
        self,
        net: Autoregressor,
        compile: bool = False,
        score: Callable[[Tensor, Tensor | None], Scores] | None = None,
    ) -> None:
        wrap: Callable = torch.compile if compile else lambda function: function
        self.net, self.custom_score = net, score is not None
        self._score = wrap(net.score if score is None else score)
        self._score_chunk = wrap(net.score_chunk) if isinstance(net, ScoresChunks) else None
        self.chunk_state: ChunkState | None = None

    def __call__(self, batch: Batch) -> Scores:
        """Scores (B, T) of a batch."""
        if batch.starts_document is None:
            return self._score(batch.tokens, batch.context)
        if self._score_chunk is None:
            raise UserError(
                f"data.batching: {type(self.net).__name__} cannot carry its state from row to row; "
                "choose windows for it"
            )
        if self.custom_score:
            raise UserError(
                "model.objective.label_smoothing: it needs independent rows; choose 0, or data.batching windows"
            )
        starts, before = batch.starts_document, self.chunk_state
        if before is None or bool(starts.all()):
            scores, after = self._score_chunk(batch.tokens, None, batch.context)
        elif not bool(starts.any()):
            scores, after = self._score_chunk(batch.tokens, before, batch.context)
        else:
            scores, after = self._mixed(batch, starts, before)
        self.chunk_state = ChunkState(after.last, after.state.map(torch.Tensor.detach))
        return scores

    def _mixed(self, batch: Batch, starts: Tensor, before: ChunkState) -> tuple[Scores, ChunkState]:
        """Score a batch of which some rows start and others continue."""
        assert self._score_chunk is not None
        new, old = starts.nonzero().flatten(), (~starts).nonzero().flatten()
        context = None if batch.context is None else batch.context[new]
        first, started = self._score_chunk(batch.tokens[new], None, context)
        rest = ChunkState(before.last[old], before.state[old])
        second, continued = self._score_chunk(batch.tokens[old], rest, None)
        order = torch.cat([new, old]).argsort()
        log_prob = torch.cat([first.log_prob, second.log_prob])[order]
        auxiliary = None
        if first.auxiliary is not None:
            auxiliary = torch.cat([first.auxiliary, second.auxiliary])[order]
        last = torch.cat([started.last, continued.last])[order]
        state = concatenate([started.state, continued.state])[order]
        return Scores(log_prob, auxiliary), ChunkState(last, state)

    def saved(self) -> list[Tensor]:
        """The carried state as plain tensors for a checkpoint; empty before the first batch."""
        state = self.chunk_state
        return [] if state is None else [state.last, *state.state.leaves()]

    def restore(self, saved: list[Tensor]) -> None:
        """Continue from the tensors that `saved` returned."""
        if saved:
            last, *leaves = saved
            _, state = self.net.start(len(last), 1)
            self.chunk_state = ChunkState(last, state.with_leaves(leaves))


@dataclass(frozen=True)
class TokenScores:
    """Scores of every token of a split under a network, in the order of the data; (N,) each."""

    positions: Tensor  # positions of the tokens in the split
    tokens: Tensor
    nats: (
        Tensor  # -log p of each token, float64; with units, times its weight if tokens have weights
    )
    units: Tensor
    context: Tensor  # number of tokens that the network had read before this one
    seconds: float

    def figures(self, unit: str, words: int = 0) -> dict[str, float]:
        """nll, ppl, bits_per_<unit> and figures per word; see `arlm.evaluation.likelihood.figures`."""
        return figures(float(self.nats.sum()), len(self.nats), float(self.units.sum()), unit, words)


def score_split(net: Autoregressor, dataset: TokenDataset, batches: Iterable[Rows]) -> TokenScores:
    """Score every token of a split exactly once, in the batches of its data set."""
    scorer, device, parts, seconds = BatchScorer(net), device_of(net), [], 0.0
    tokens_read: Tensor | None = None
    with torch.inference_mode():
        for rows in batches:
            batch = dataset[rows]
            started = time.perf_counter()
            nats = -scorer(moved(batch, device)).log_prob.double().cpu()
            seconds += time.perf_counter() - started
            tokens_read = _read_before(batch, tokens_read)
            context = tokens_read[:, None] + torch.arange(batch.tokens.shape[1])
            tokens_read = tokens_read + batch.tokens.shape[1]
            weights = scored_weights(batch)
            columns = (dataset.positions(rows), batch.tokens, nats, batch.units, context, weights)
            parts.append([column[batch.scored] for column in columns])
    joined = [torch.cat(column) for column in zip(*parts, strict=True)]
    order = joined[0].argsort()
    positions, tokens, all_nats, units, context, weights = (column[order] for column in joined)
    if bool((weights != 1).any()):  # such that means are weighted means
        share = weights / weights.mean()
        all_nats, units = all_nats * share, units * share
    return TokenScores(positions, tokens, all_nats, units, context, seconds)


def _read_before(batch: Batch, tokens_read: Tensor | None) -> Tensor:
    """Number of tokens that the network has read in each row before this batch, (B,)."""
    zeros = torch.zeros(len(batch.tokens), dtype=torch.long)
    if batch.starts_document is None or tokens_read is None:
        return zeros
    return tokens_read.where(~batch.starts_document, zeros)


def check_same(scores: dict[str, TokenScores]) -> None:
    """Refuse networks that were not scored on the same tokens, and say where they differ."""
    (first, reference), *others = scores.items()
    for name, other in others:
        counts = len(reference.tokens), len(other.tokens)
        refusal = f"runs: '{first}' and '{name}' cannot be compared: "
        mend = "; give runs of the same data, split and tokenizer, or one --data for all"
        if counts[0] != counts[1]:
            raise UserError(f"{refusal}they score {counts[0]} and {counts[1]} tokens{mend}")
        for verb, a, b in (
            ("score token number", reference.positions, other.positions),
            ("read the token", reference.tokens, other.tokens),
        ):
            different = (a != b).nonzero()
            if len(different):
                i = int(different[0])
                raise UserError(
                    f"{refusal}at position {i} they {verb} {int(a[i])} and {int(b[i])}{mend}"
                )
        if not torch.equal(reference.units, other.units):
            raise UserError(f"{refusal}they count different units for a token{mend}")
