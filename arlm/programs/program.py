"""A network at one pixel: what is computed there once everything before it is known.

Incremental sampling writes a network down as a list of small operations on one flat row of numbers for
each image, the arena. `Tape` records that list, and `arlm.programs.torch_backend` plays it.

References:
    | Fast Generation for Convolutional Autoregressive Models (Ramachandran et al., 2017): the caches
    | https://arxiv.org/abs/1704.06001
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple, TypeVar

from torch import Tensor


class Code(IntEnum):
    """What an operation does with its parts a, b, c and out."""

    LINEAR = 0  # out = a @ weight, plus b if given
    RELU = 1  # out = max(a, 0)
    ELU = 2
    CONCAT_ELU = 3  # out = elu([a, -a])
    TANH_GATE = 4  # out = tanh(first half of a) * sigmoid(second half)
    GATE = 5  # out = b + first half of a * sigmoid(second half)
    LSTM = 6  # a = [o, f, i, g], b = cell before, c = cell after, out = hidden
    ADD = 7  # out = a + b
    COPY = 8  # out = a
    ATTEND = 9  # query a, keys b and values c of all pixels before this one


@dataclass(frozen=True)
class Part:
    """`size` adjacent numbers of the arena, at pixel (i, j): base + i * down + j // step * right."""

    base: int
    size: int
    right: int = 0
    down: int = 0
    step: int = 1

    def cut(self, first: int, size: int) -> Part:
        """Some of them."""
        return replace(self, base=self.base + first, size=size)

    def at(self, arena: Tensor, row: int = 0) -> Tensor:
        """(B, size) at the first pixel of a row."""
        first = self.base + row * self.down
        return arena[:, first : first + self.size]

    def whole(self, arena: Tensor, row: int, columns: range) -> Tensor:
        """(columns, B, size) of a row: one view."""
        first = self.base + row * self.down + columns.start // self.step * self.right
        stride = columns.step * self.right // self.step
        return arena.as_strided(
            (len(columns), len(arena), self.size), (stride, *arena.stride()), first
        )

    def views(self, arena: Tensor, row: int, columns: int) -> list[Tensor]:
        """Views (B, size) for each column of a row."""
        batch, total = arena.shape
        base = self.base + row * self.down
        if not self.right:
            return [arena[:, base : base + self.size]] * columns
        shape = (-(-columns // self.step), batch, self.size)
        views = arena.as_strided(shape, (self.right, total, 1), base).unbind(0)
        return [view for view in views for _ in range(self.step)][:columns]


T = TypeVar("T", Part, Tensor)


@dataclass(frozen=True)
class Map:
    """Features of the columns of a few rows, the newest row last, with zeros around them.

    Several maps of one size (`count`) lie side by side, so that one batched product serves them all.
    """

    base: int
    count: int
    rows: int
    columns: int
    features: int
    left: int
    step: int

    def view(self, arena: Tensor) -> Tensor:
        """(B, count, rows, columns, features)."""
        shape = (self.count, self.rows, self.columns, self.features)
        return arena[:, self.base : self.base + math.prod(shape)].unflatten(1, shape)

    def __getitem__(self, index: int) -> Map:
        size = self.rows * self.columns * self.features
        return replace(self, base=self.base + index * size, count=1)

    def window(self, taps: int = 1, seen: float = 1.0) -> Part:
        """The newest row's features at the pixel and at `taps - 1` pixels to its left, in that order.

        Args:
            seen: share of the pixel's own features that count, the first ones.
        """
        size = (taps - 1) * self.features + round(seen * self.features)
        return self.span(taps - 1, 0).cut(0, size)

    def span(self, left: int, right: int, row: int = -1) -> Part:
        """A row's features from `left` pixels to the left of the pixel to `right` to its right."""
        first = row % self.rows * self.columns + self.left - left
        size = (left + 1 + right) * self.features
        return Part(self.base + first * self.features, size, self.features, step=self.step)


class History(NamedTuple):
    """Features of all pixels so far, in raster order."""

    before: Part  # of the pixel before the one at hand
    here: Part


@dataclass(frozen=True)
class Operation:
    """One entry of a tape."""

    code: Code
    a: Part
    out: Part
    b: Part | None = None
    c: Part | None = None
    weight: Tensor | None = None
    phase: tuple[int, int, int] = (1, 0, 0)  # (n, y, x): only where (i % n, j % n) == (y, x)


class Stage(NamedTuple):
    """Operations when a row begins: one after the other at all columns, or a scan from right to left."""

    scan: bool  # all operations at the last column, then all at the one before, ...
    after: int  # the first row that it is for
    operations: list[Operation]


class Tape:
    """The operations at a pixel, for each group of channels, and those when a row begins.

    `tape.group = g` turns to the pixel's, `tape.at_row()` to the row's: what maps hold as their newest row
    then is the row above.

    Args:
        height, width, channels: of the image.
        groups: C if features are split into R, G and B, 1 if a pixel is computed at once.
    """

    image: Map  # intensities, written by the decoder
    out: Part  # logits of the next token, or the parameters of all channels of the pixel

    def __init__(self, height: int, width: int, channels: int, groups: int) -> None:
        self.height, self.width, self.channels, self.groups = height, width, channels, groups
        self.size = 0
        self.ones: list[int] = []
        self.constants: list[tuple[Part, Callable[[Tensor | None], Tensor]]] = []
        self.beginnings: list[Callable[[Tensor], object]] = []  # what fills the arena at the start
        self.operations: list[list[Operation]] = [[] for _ in range(groups)]
        self.stages: list[Stage] = []
        self.group = 0
        self.phase = (1, 0, 0)  # of the pixels that they are recorded for

    @property
    def group(self) -> int:
        """The channel group that operations are recorded for."""
        return self._group

    @group.setter
    def group(self, group: int) -> None:
        self._group, self._recorded = group, self.operations[group]

    def at_row(self, scan: bool = False, after: int = 0) -> None:
        """Record a stage of what happens when a row begins."""
        self.stages.append(Stage(scan, after, []))
        self._recorded = self.stages[-1].operations

    def shift(self, rows: Map) -> None:
        """Move the rows of a map up by one; the newest stays, to be written over."""
        for row in range(rows.rows - 1):
            self.add(Code.COPY, rows.span(0, 0, row + 1), rows.span(0, 0, row))

    def map(
        self,
        features: int,
        left: int = 0,
        right: int = 0,
        rows: int = 1,
        count: int = 1,
        step: int = 1,
    ) -> Map:
        """Room for features of every column; `step` 2 has one for every second column."""
        columns = left + -(-self.width // step) + right
        new = Map(self.size, count, rows, columns, features, left, step)
        self.size += count * rows * columns * features
        return new

    def history(self, features: int, count: int) -> list[History]:
        """Room for features of every pixel of the image."""
        found = []
        for _ in range(count):
            before = Part(self.size, features, features, self.width * features)
            found.append(History(before, replace(before, base=self.size + features)))
            self.size += (1 + self.height * self.width) * features
        return found

    def cell(self, features: int) -> Part:
        """Room for features of the pixel at hand, after a 1 that carries the bias of `linear`."""
        self.ones.append(self.size)
        self.size += 1 + features
        return Part(self.size - features, features)

    def constant(self, value: Callable[[Tensor | None], Tensor], features: int) -> Part:
        """Room for what stays the same for the whole image: `value(context)`, (B, features)."""
        self.size += features
        part = Part(self.size - features, features)
        self.constants.append((part, value))
        return part

    def fixed(self, value: Tensor, label: Callable[[Tensor | None], Tensor] | None = None) -> Part:
        """Room for a bias that `linear` can begin from, and what the class label adds to it."""
        if label is None:
            return self.constant(lambda context: value, len(value))
        return self.constant(lambda context: value + label(context), len(value))

    def piece(self, whole: Part, group: int) -> Part:
        """A group's piece of a part."""
        size = whole.size // self.groups
        return whole.cut(group * size, size)

    def mine(self, whole: T) -> T:
        """The current group's piece of a part, or its columns of a weight."""
        if isinstance(whole, Part):
            return self.piece(whole, self.group)
        return whole.chunk(self.groups, dim=1)[self.group]

    def seen(self, cell: Part) -> Part:
        """The groups of a cell up to the current one, and the 1 in front."""
        return cell.cut(-1, 1 + cell.size // self.groups * (self.group + 1))

    def linear(self, source: Part, weight: Tensor, out: Part, base: Part | None = None) -> None:
        """out = source @ weight[: source.size], plus base. weight is (in, out)."""
        self.add(Code.LINEAR, source, out, base, weight=weight[: source.size])

    def add(self, code: Code, a: Part, out: Part, b: Part | None = None, **more) -> None:
        """Record an operation for the current group."""
        if more.get("weight") is not None:
            more["weight"] = more["weight"].detach().contiguous()
        more["phase"] = self.phase
        self._recorded.append(Operation(code, a, out, b, **more))
