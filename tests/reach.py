"""Which earlier tokens each token's logits should see, followed through the layers as drawn in the papers.

A reach maps each position (row, column, channel) to the set of positions that its features depend on. A network
that sees all earlier tokens needs no entry here; one that sees the last n needs a line in `LAST`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from arlm.adapters import Adapted, LogitArithmetic
from arlm.core import Autoregressor

Position = tuple[int, int, int]
Reach = dict[Position, frozenset[Position]]


def positions(net: Autoregressor) -> list[Position]:
    height, width, channels = net.spec.shape
    return list(itertools.product(range(height), range(width), range(channels)))


def union(sets: Iterable[frozenset[Position]]) -> frozenset[Position]:
    return frozenset().union(*sets)


def convolved(reach: Reach, sees: Callable[[Position, Position], bool]) -> Reach:
    """What a layer's outputs reach, where `sees(target, source)` says which inputs each output reads."""
    return {t: union(reach[s] for s in reach if sees(t, s)) for t in reach}


def masked(height: int, width: int, itself: bool) -> Callable[[Position, Position], bool]:
    """Mask A (without itself) or B of a kernel with `height` rows and `width` columns on each side."""

    def sees(target: Position, source: Position) -> bool:
        dy, dx = source[0] - target[0], source[1] - target[1]
        if abs(dy) > height or abs(dx) > width:
            return False
        if (dy, dx) == (0, 0):
            return source[2] < target[2] + itself
        return dy < 0 or (dy == 0 and dx < 0)

    return sees


def start(net: Autoregressor) -> Reach:
    return {p: frozenset([p]) for p in positions(net)}


def pixel(reach: Reach, i: int, j: int) -> frozenset[Position]:
    """All channels of a pixel; nothing outside the image."""
    return union(reach.get((i, j, c), frozenset()) for c in range(3))


def pixelcnn(net: Autoregressor) -> Reach:
    reach = convolved(start(net), masked(3, 3, False))
    for _ in range(net.depth):
        reach = convolved(reach, masked(1, 1, True))
    return reach


def row_lstm(net: Autoregressor) -> Reach:
    x = convolved(start(net), masked(3, 3, False))
    for _ in range(net.depth):
        states: Reach = {}
        read = convolved(x, masked(0, 1, True))
        for i, j, c in positions(net):
            above = union(pixel(states, i - 1, j + d) for d in (-1, 0, 1))
            states[i, j, c] = read[i, j, c] | above
        x = {p: x[p] | union(states[(*p[:2], c)] for c in range(p[2] + 1)) for p in x}
    return x


def diagonal_bilstm(net: Autoregressor) -> Reach:
    x = convolved(start(net), masked(3, 3, False))
    more = convolved(start(net), masked(3, 3, True))
    width = net.spec.shape[1]
    for _ in range(net.depth):
        forth: Reach = {}
        back: Reach = {}
        for i, j, c in positions(net):
            before = pixel(forth, i, j - 1) | pixel(forth, i - 1, j)
            forth[i, j, c] = union(x[i, j, d] for d in range(c + 1)) | before
        for i, j, c in positions(net):
            j = width - 1 - j
            read = pixel(x, i, j) | (pixel(more, i, j) if net.complete else frozenset())
            back[i, j, c] = read | pixel(back, i, j + 1) | pixel(back, i - 1, j)
        y = {(i, j, c): forth[i, j, c] | pixel(back, i - 1, j) for i, j, c in x}
        x = {p: x[p] | union(y[(*p[:2], c)] for c in range(p[2] + 1)) for p in x}
    return x


def gated_pixelcnn(net: Autoregressor) -> Reach:
    image, side = start(net), net.kernel // 2

    def above(rows: int, columns: int, own: bool) -> Callable[[Position, Position], bool]:
        """The vertical stack's kernels: whole rows, all channels."""
        return lambda t, s: -rows <= s[0] - t[0] < own and abs(s[1] - t[1]) <= columns

    vertical = convolved(image, above(3, 3, False))
    skips = h = {
        p: across | vertical[p] for p, across in convolved(image, masked(0, 3, False)).items()
    }
    for _ in range(net.depth):
        vertical = convolved(vertical, above(side, side, True))
        across = convolved(h, masked(0, side, True))
        h = {p: h[p] | across[p] | vertical[p] for p in h}
        skips = {p: skips[p] | h[p] for p in h}
    return skips


REACH: dict[str, Callable[[Autoregressor], Reach]] = {
    "PixelCNN": pixelcnn,
    "RowLSTM": row_lstm,
    "DiagonalBiLSTM": diagonal_bilstm,
    "GatedPixelCNN": gated_pixelcnn,
}
# How many of the last tokens a network of limited context sees.
LAST: dict[str, Callable[[Any], int]] = {
    "NeuralNGram": lambda net: net.order - 1,
    "KneserNeyNGram": lambda net: net.order - 1,
    "Unigram": lambda net: 0,
    "Histogram": lambda net: 0,
    "BERT": lambda net: 0,
    "BiLSTM": lambda net: 0,
    "TwoSidedNGram": lambda net: 0,
}


def reach_of(net: Autoregressor) -> Tensor:
    """(T, T) bool: row t is what the logits of token t should see; all that is earlier by default."""
    length = net.spec.length
    earlier = torch.ones(length, length).tril(-1).bool()
    if isinstance(net, LogitArithmetic):
        parts = [reach_of(net.nets[term.net]) for term in net.terms if term.weight]
        return torch.stack(parts).any(0)
    if isinstance(net, Adapted):
        return reach_of(net.base)
    for kind in type(net).__mro__:
        if kind.__name__ in LAST:
            return earlier.triu(-LAST[kind.__name__](net))
        if kind.__name__ in REACH:
            order = {p: t for t, p in enumerate(positions(net))}
            matrix = torch.zeros(length, length, dtype=torch.bool)
            for target, sources in REACH[kind.__name__](net).items():
                matrix[order[target], [order[s] for s in sources]] = True
            return matrix
    return earlier
