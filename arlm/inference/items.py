"""Score single objects, such as a text, an image or a pair: nats, rank and alternatives of every token.

    prefix     given     scored         the prefix is read and not scored
    p p p p    x x x x x x x x          a text that fits the network's window is one row

A longer text is read in the overlapping windows of `arlm.data.windows`, so that each token is scored once, or in one
pass by a network that carries its state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import Autoregressor, device_of, log_softmax
from arlm.domains import Domain
from arlm.errors import UserError
from arlm.evaluation.likelihood import figures
from arlm.inference.scorer import ScoresChunks

BATCH_LOGITS = 2**23  # largest number of logits in a batch
CHUNK = 2**10  # tokens that a network with a state reads at once
PART = 2**20  # tokens whose units are added up at once


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


class _Part(NamedTuple):
    """N tokens that are scored together."""

    items: Tensor  # (N,) int64: whose they are
    positions: Tensor  # (N,) int64: in their item, which the prefix begins
    tokens: Tensor  # (N,) int64
    log_prob: Tensor  # (N, V): of the vocabulary, under the network


class Sums(NamedTuple):
    """What figures are divided from: of an item, or of several."""

    nats: float
    tokens: int
    units: float

    def figures(self, domain: Domain) -> dict[str, float]:
        """nats, tokens, units, and these divided."""
        sums = {"nats": self.nats, "tokens": self.tokens, f"{domain.unit}s": self.units}
        return sums | figures(self.nats, self.tokens, self.units, domain.unit)


def figures_of(scored: Sequence[ItemScores], domain: Domain) -> dict[str, float]:
    """Figures of several items together: nats, tokens, units, and these divided."""
    nats = sum(float(one.nats.sum()) for one in scored)
    units = sum(_units(one.item, domain) for one in scored)
    return Sums(nats, sum(len(one.tokens) for one in scored), units).figures(domain)


def _units(item: Item, domain: Domain) -> float:
    """Units of an item's scored tokens, added up in parts, as a number for each token of a long text takes memory."""
    scored = item.tokens[item.given :]
    return sum(float(domain.units(part).double().sum()) for part in scored.split(PART))


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
    if not items:
        return []
    check_items(items)
    top = min(top, net.spec.vocab_size)
    counts = [len(item.tokens) - item.given for item in items]
    ends = torch.tensor(counts).cumsum(0)
    sizes = torch.tensor([len(item.tokens) for item in items])
    first = ends - sizes  # where an item's token 0 would be
    total = int(ends[-1])
    nats = torch.empty(total, dtype=torch.float64)
    ranks = torch.empty(total, dtype=torch.long)
    best = torch.empty(total, top, dtype=torch.long)
    best_nats = torch.empty(total, top, dtype=torch.float64)
    for part in _parts(net, items, stride):
        index = first[part.items] + part.positions
        own = part.log_prob.gather(-1, part.tokens[:, None])
        nats[index] = -own[:, 0].double().cpu()
        ranks[index] = 1 + (part.log_prob > own).sum(-1).cpu()
        if top:
            likeliest = part.log_prob.topk(top, dim=-1)
            best[index] = likeliest.indices.cpu()
            best_nats[index] = -likeliest.values.double().cpu()
    columns = zip(*(column.split(counts) for column in (nats, ranks, best, best_nats)), strict=True)
    return [ItemScores(item, *column) for item, column in zip(items, columns, strict=True)]


def sum_items(
    net: Autoregressor,
    items: Sequence[Item],
    domain: Domain,
    stride: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Sums]:
    """The sums of every item, without the numbers of each token, which of a large text take memory.

    Args:
        net, items, stride: as for `score_items`.
        domain: of the items, for their units.
        progress: called with the number of tokens that were scored.
    """
    check_items(items)
    nats = torch.zeros(len(items), dtype=torch.float64)
    for part in _parts(net, items, stride):
        own = part.log_prob.gather(-1, part.tokens[:, None])[:, 0]
        nats.index_add_(0, part.items, -own.double().cpu())
        if progress:
            progress(len(own))
    return [
        Sums(value, len(item.tokens) - item.given, _units(item, domain))
        for item, value in zip(items, nats.tolist(), strict=True)
    ]


def check_items(items: Sequence[Item]) -> None:
    """Refuse items without a token to score."""
    for item in items:
        if len(item.tokens) <= item.given:
            raise UserError(
                f"{item.name}: it holds no tokens to score; give at least one character"
            )


def _parts(net: Autoregressor, items: Sequence[Item], stride: int | None) -> Iterator[_Part]:
    """The tokens to score, each once, batch by batch."""
    window = net.spec.length
    stride = max(1, window // 2) if stride is None else min(stride, window)
    rows = []  # those of an item have one length, and there may be millions: they are made when they are read
    for index, item in enumerate(items):
        length = len(item.tokens)
        if length <= window or not isinstance(net, ScoresChunks):
            rows.append((min(length, window), _rows(index, length, window, stride)))
            continue
        for start, logits in _chunk_logits(net, item, window):
            row = _Row(index, start, start + len(logits), start)
            yield _part(items, [row], item.tokens[None, row.start : row.stop], logits[None])
    rows.sort(key=lambda part: -part[0])
    ordered = chain.from_iterable(part for _, part in rows)
    for batch in _batches(ordered, net.spec.vocab_size):
        tokens, context = _padded(net, items, batch)
        with torch.inference_mode():
            logits = net(tokens, context)
        yield _part(items, batch, tokens, logits)


def _rows(index: int, length: int, window: int, stride: int) -> Iterator[_Row]:
    """The rows of an item of `length` tokens."""
    for start, first in windows(length, window, stride):
        yield _Row(index, start, min(start + window, length), first)


def _part(items: Sequence[Item], rows: Sequence[_Row], tokens: Tensor, logits: Tensor) -> _Part:
    """What is scored of rows (B, T) with their logits (B, T, V)."""
    starts = torch.tensor([row.start for row in rows])[:, None]
    firsts = torch.tensor([max(row.first, items[row.item].given) for row in rows])[:, None]
    stops = torch.tensor([row.stop for row in rows])[:, None]
    positions = starts + torch.arange(tokens.shape[1])
    scored = (positions >= firsts) & (positions < stops)
    owner = torch.tensor([row.item for row in rows])[:, None].expand_as(positions)
    there = scored.to(logits.device)
    with torch.inference_mode():
        log_prob = log_softmax(logits[there])
    return _Part(owner[scored], positions[scored], tokens.to(logits.device)[there], log_prob)


def _chunk_logits(net: Any, item: Item, window: int) -> Iterator[tuple[int, Tensor]]:
    """First position and logits (S, V) of each chunk of tokens, in one pass that carries the state."""
    tokens, device = item.tokens, device_of(net)
    context = None if item.context is None else item.context[None].to(device)
    size = max(window, min(CHUNK, BATCH_LOGITS // net.spec.vocab_size))
    with torch.inference_mode():
        logits, state = net.start(1, size, context)
    yield 0, logits
    for first in range(0, len(tokens) - 1, size):
        last = min(first + size, len(tokens) - 1)
        with torch.inference_mode():
            logits, state = net.advance(tokens[None, first:last].to(device), state)
        yield first + 1, logits[0]


def _batches(rows: Iterator[_Row], vocab_size: int) -> Iterator[list[_Row]]:
    """Rows, of which the first are the longest, in batches within the budget of logits."""
    for row in rows:
        count = max(1, BATCH_LOGITS // max(1, (row.stop - row.start) * vocab_size))
        yield [row, *islice(rows, count - 1)]


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
