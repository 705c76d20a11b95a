"""Score single objects, such as a text, an image or a pair: nats, rank and alternatives of every token.

    prefix     given     scored         the prefix is read and not scored
    p p p p    x x x x x x x x          a text that fits the network's window is one row

A longer text is read in the overlapping windows of `arlm.data.windows`, so that each token is scored once, or in one
pass by a network that carries its state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import Autoregressor, device_of, log_softmax
from arlm.domains import Domain
from arlm.errors import UserError
from arlm.evaluation.likelihood import figures
from arlm.inference.scorer import ScoresChunks

BATCH_LOGITS = 2**25  # largest number of logits in a batch


class Item(NamedTuple):
    """An object to score."""

    name: str
    tokens: Tensor  # (T,) int64, the prefix first
    given: int = 0  # tokens of the prefix
    context: Tensor | None = None  # (S,) int64: the tokens of a source, or a class label


@dataclass(frozen=True)
class ItemScores:
    """Scores of the N tokens of an item that follow its prefix."""

    item: Item
    nats: Tensor  # (N,) float64
    ranks: Tensor  # (N,) int64; 1 for the network's likeliest token
    top: Tensor  # (N, K) int64: the likeliest tokens
    top_nats: Tensor  # (N, K) float64

    @property
    def tokens(self) -> Tensor:
        """The scored tokens, (N,)."""
        return self.item.tokens[self.item.given :]

    def cut(self, most: int) -> ItemScores:
        """The first `most` of the scored tokens."""
        item = self.item._replace(tokens=self.item.tokens[: self.item.given + most])
        parts = self.nats, self.ranks, self.top, self.top_nats
        return ItemScores(item, *(part[:most] for part in parts))


class _Row(NamedTuple):
    """Part of an item that is one row of a batch."""

    item: int
    start: int
    stop: int
    first: int  # the first token that is scored


def figures_of(scored: Sequence[ItemScores], domain: Domain) -> dict[str, float]:
    """Figures of several items together: nats, tokens, units, and these divided."""
    nats = sum(float(one.nats.sum()) for one in scored)
    units = sum(float(domain.units(one.tokens).double().sum()) for one in scored)
    tokens = sum(len(one.tokens) for one in scored)
    sums = {"nats": nats, "tokens": tokens, f"{domain.unit}s": units}
    return sums | figures(nats, tokens, units, domain.unit)


def windows(length: int, window: int, stride: int) -> Iterator[tuple[int, int]]:
    """Start of each window, and the first token that it scores, as evaluation cuts a text of `length` tokens."""
    done = 0
    for start in range(0, max(1, length - window + stride), stride):
        start = min(start, max(0, length - window))
        yield start, done
        done = start + window


def score_items(
    net: Autoregressor, items: Sequence[Item], top: int = 0, stride: int | None = None
) -> list[ItemScores]:
    """Score every item.

    Args:
        net: the network, in eval mode.
        items: tokens of the network's vocabulary; all with a context, or none.
        top: number of the likeliest tokens to return at each position, K.
        stride: tokens by which the windows of a long text advance; by default half a window.

    Raises:
        UserError: an item holds nothing to score.
    """
    for item in items:
        if len(item.tokens) <= item.given:
            raise UserError(
                f"{item.name}: it holds no tokens to score; give at least one character"
            )
    window = net.spec.length
    stride = max(1, window // 2) if stride is None else min(stride, window)
    parts: list[list[tuple[Tensor, ...]]] = [[] for _ in items]
    rows = []
    with torch.inference_mode():
        for index, item in enumerate(items):
            length = len(item.tokens)
            if length > window and isinstance(net, ScoresChunks):
                for first, logits in _chunk_logits(net, item, window):
                    parts[index].append(_columns(item, first, logits, top))
                continue
            cut = windows(length, window, stride)
            rows += [_Row(index, s, min(s + window, length), first) for s, first in cut]
        for batch in _batches(rows, net.spec.vocab_size):
            logits = net(*_padded(net, items, batch))
            for row, own in zip(batch, logits, strict=True):
                chosen = own[row.first - row.start : row.stop - row.start]
                parts[row.item].append(_columns(items[row.item], row.first, chosen, top))
    return [
        ItemScores(item, *(torch.cat(column) for column in zip(*_in_order(found), strict=True)))
        for item, found in zip(items, parts, strict=True)
    ]


def _chunk_logits(net: Any, item: Item, size: int) -> Iterator[tuple[int, Tensor]]:
    """First position and logits (S, V) of each chunk of `size` tokens, in one pass that carries the state."""
    tokens = item.tokens[None].to(device_of(net))
    context = None if item.context is None else item.context[None].to(tokens.device)
    logits, state = net.start(1, size, context)
    yield 0, logits
    for first in range(0, tokens.shape[1] - 1, size):
        last = min(first + size, tokens.shape[1] - 1)
        logits, state = net.advance(tokens[:, first:last], state)
        yield first + 1, logits[0]


def _batches(rows: list[_Row], vocab_size: int) -> Iterator[list[_Row]]:
    """Rows of about equal length, within the budget of logits."""
    rows = sorted(rows, key=lambda row: row.stop - row.start)
    while rows:
        longest = rows[-1].stop - rows[-1].start
        count = max(1, BATCH_LOGITS // max(1, longest * vocab_size))
        yield rows[-count:]
        del rows[-count:]


def _padded(
    net: Autoregressor, items: Sequence[Item], batch: list[_Row]
) -> tuple[Tensor, Tensor | None]:
    """Tokens (B, T) of a batch, and its context; logits of padding are not read."""
    device = device_of(net)
    cut = [items[row.item].tokens[row.start : row.stop] for row in batch]
    contexts = [items[row.item].context for row in batch]
    tokens = pad_sequence(cut, batch_first=True).to(device)
    if net.spec.context is None or any(context is None for context in contexts):
        return tokens, None
    pad = net.spec.context.pad_id or 0
    given: Any = contexts
    return tokens, pad_sequence(given, batch_first=True, padding_value=pad).to(device)


def _columns(item: Item, first: int, logits: Tensor, top: int) -> tuple[Tensor, ...]:
    """Position, nats, rank and alternatives of the tokens from `first` on, from their logits (S, V)."""
    skip = min(len(logits), max(0, item.given - first))  # of the prefix
    first, logits = first + skip, logits[skip:]
    log_prob = log_softmax(logits)
    tokens = item.tokens[first : first + len(logits)].to(logits.device)
    own = log_prob.gather(-1, tokens[:, None])
    ranks = 1 + (log_prob > own).sum(-1)
    best = log_prob.topk(min(top, log_prob.shape[-1]), dim=-1)
    positions = torch.arange(first, first + len(logits))
    columns = -own[:, 0].double(), ranks, best.indices, -best.values.double()
    return positions, *(column.cpu() for column in columns)


def _in_order(found: list[tuple[Tensor, ...]]) -> list[list[Tensor]]:
    """The columns of an item's parts but their positions, in the order of these."""
    scored = [part for part in found if len(part[0])]
    return [columns for _, *columns in sorted(scored, key=lambda part: int(part[0][0]))]
