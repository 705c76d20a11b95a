"""Fast sampling of pixel networks: a cache keeps the features of earlier pixels; each step computes one pixel.

A program lists the operations that compute the features of one pixel, and the slices of a workspace that
they read and write. A network records its program once; a backend runs it at each pixel.

The workspace of one image is a flat row of N numbers. A feature buffer holds the features of all columns
for a few image rows, with zeros as padding, so that the window of a convolution is one contiguous slice:

    feature buffer, 2 rows of 4 columns, padded by 1 on both sides; each entry is `features` numbers

        0  a0 a1 a2 a3  0      row above
        0  b0 b1 b2 b3  0      newest row, `window(3)` at column 2 is the slice [b0 b1 b2]

References:
    | Fast Generation for Convolutional Autoregressive Models (Ramachandran et al., 2017)
    | https://arxiv.org/abs/1704.06001
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from torch import Tensor


class Opcode(IntEnum):
    """The computation of an operation on its slices a, b, c and out."""

    LINEAR = 0  # out = a @ weight, plus b if given
    RELU = 1  # out = max(a, 0)
    ELU = 2
    CONCAT_ELU = 3  # out = elu([a, -a])
    TANH_GATE = 4  # out = tanh(first half of a) * sigmoid(second half)
    GATE = 5  # out = b + first half of a * sigmoid(second half)
    LSTM = 6  # a = [o, f, i, g], b = cell before, c = cell after, out = hidden
    ADD = 7  # out = a + b
    COPY = 8  # out = a
    ATTEND = 9  # out = attention with query a, keys b and values c over all earlier pixels


@dataclass(frozen=True)
class Slice:
    """`size` numbers of the workspace; at pixel (i, j) they start at base + i * down + j // step * right."""

    base: int
    size: int
    right: int = 0
    down: int = 0
    step: int = 1

    def part(self, first: int, size: int) -> Slice:
        """The slice of `size` numbers that starts at number `first` of this one."""
        return replace(self, base=self.base + first, size=size)

    def at(self, workspace: Tensor, row: int = 0) -> Tensor:
        """View (B, size) of the first pixel of an image row."""
        first = self.base + row * self.down
        return workspace[:, first : first + self.size]

    def row_view(self, workspace: Tensor, row: int, columns: range) -> Tensor:
        """One view (columns, B, size) of several columns of an image row."""
        first = self.base + row * self.down + columns.start // self.step * self.right
        stride = columns.step * self.right // self.step
        return workspace.as_strided(
            (len(columns), len(workspace), self.size), (stride, *workspace.stride()), first
        )

    def column_views(self, workspace: Tensor, row: int, columns: int) -> list[Tensor]:
        """A view (B, size) for each column of an image row."""
        batch, total = workspace.shape
        base = self.base + row * self.down
        if not self.right:
            return [workspace[:, base : base + self.size]] * columns
        shape = (-(-columns // self.step), batch, self.size)
        views = workspace.as_strided(shape, (self.right, total, 1), base).unbind(0)
        return [view for view in views for _ in range(self.step)][:columns]


T = TypeVar("T", Slice, Tensor)


@dataclass(frozen=True)
class FeatureBuffer:
    """Features of all columns of a few image rows, the newest row last, padded with zeros on both sides.

    `count` buffers of the same size are adjacent, so that one batched product processes all of them.
    """

    base: int
    count: int
    rows: int
    columns: int
    features: int
    left: int
    step: int

    def view(self, workspace: Tensor) -> Tensor:
        """View (B, count, rows, columns, features)."""
        shape = (self.count, self.rows, self.columns, self.features)
        return workspace[:, self.base : self.base + math.prod(shape)].unflatten(1, shape)

    def __getitem__(self, index: int) -> FeatureBuffer:
        size = self.rows * self.columns * self.features
        return replace(self, base=self.base + index * size, count=1)

    def window(self, taps: int = 1, own_share: float = 1.0) -> Slice:
        """The newest row's features at `taps - 1` pixels to the left of the pixel, then at the pixel itself.

        Args:
            taps: pixels in the window.
            own_share: share of the pixel's own features to include, the first ones; 0 leaves them out.
        """
        size = (taps - 1) * self.features + round(own_share * self.features)
        return self.span(taps - 1, 0).part(0, size)

    def span(self, left: int, right: int, row: int = -1) -> Slice:
        """A row's features from `left` pixels to the left of the pixel to `right` pixels to its right."""
        first = row % self.rows * self.columns + self.left - left
        size = (left + 1 + right) * self.features
        return Slice(self.base + first * self.features, size, self.features, step=self.step)


class History(NamedTuple):
    """Features of all earlier pixels, in raster order."""

    before: Slice  # of the pixel before the current one
    here: Slice  # of the current pixel


@dataclass(frozen=True)
class Operation:
    """One entry of a program."""

    code: Opcode
    a: Slice
    out: Slice
    b: Slice | None = None
    c: Slice | None = None
    weight: Tensor | None = None
    phase: tuple[int, int, int] = (1, 0, 0)  # (n, y, x): run only where (i % n, j % n) == (y, x)


class Stage(NamedTuple):
    """Operations that run when an image row begins: each over all columns, or all in a scan of the columns."""

    scan: bool  # from right to left: all operations at the last column, then at the one before, ...
    after: int  # the first image row that the stage runs for
    operations: list[Operation]


class Program:
    """The operations at a pixel, for each channel group, and the stages that run when an image row begins.

    `program.group = g` records the next operations for channel group g; `program.row_stage()` records them for
    the beginning of an image row, when the newest row of a feature buffer is still the row above.

    Args:
        height, width, channels: of the image.
        groups: C if features are split into R, G and B; 1 if a pixel's channels are computed together.
    """

    image: FeatureBuffer  # intensities, written by the sampler
    out: Slice  # logits of the next token, or the parameters of all channels of the pixel
    # Called with (workspace, row) before the row stages.
    before_row: Callable[[Tensor, int], object] | None = None

    def __init__(self, height: int, width: int, channels: int, groups: int) -> None:
        self.height, self.width, self.channels, self.groups = height, width, channels, groups
        self.size = 0
        self.ones: list[int] = []  # positions of the constant 1 in front of scratch slices
        self.constants: list[tuple[Slice, Callable[[Tensor | None], Tensor]]] = []
        self.initialisers: list[Callable[[Tensor], object]] = []  # fill the workspace at the start
        self.operations: list[list[Operation]] = [[] for _ in range(groups)]
        self.stages: list[Stage] = []
        self.group = 0
        self.phase = (1, 0, 0)  # of the pixels that operations are recorded for

    @property
    def group(self) -> int:
        """The channel group that operations are recorded for."""
        return self._group

    @group.setter
    def group(self, group: int) -> None:
        self._group, self._recorded = group, self.operations[group]

    def row_stage(self, scan: bool = False, after: int = 0) -> None:
        """Record the next operations as a new stage at the beginning of an image row."""
        self.stages.append(Stage(scan, after, []))
        self._recorded = self.stages[-1].operations

    def shift_up(self, rows: FeatureBuffer) -> None:
        """Move the rows of a feature buffer up by one; the newest keeps its values until it is written."""
        for row in range(rows.rows - 1):
            self.add(Opcode.COPY, rows.span(0, 0, row + 1), rows.span(0, 0, row))

    def feature_buffer(
        self,
        features: int,
        left: int = 0,
        right: int = 0,
        rows: int = 1,
        count: int = 1,
        step: int = 1,
    ) -> FeatureBuffer:
        """Allocate features of every column, or with `step` 2 of every second column."""
        columns = left + -(-self.width // step) + right
        new = FeatureBuffer(self.size, count, rows, columns, features, left, step)
        self.size += count * rows * columns * features
        return new

    def history(self, features: int, count: int) -> list[History]:
        """Allocate features of every pixel of the image, `count` times."""
        histories = []
        for _ in range(count):
            before = Slice(self.size, features, features, self.width * features)
            histories.append(History(before, replace(before, base=self.size + features)))
            self.size += (1 + self.height * self.width) * features
        return histories

    def scratch(self, features: int) -> Slice:
        """Allocate features of the current pixel, preceded by a 1, which multiplies the bias in `linear`."""
        self.ones.append(self.size)
        self.size += 1 + features
        return Slice(self.size - features, features)

    def constant(self, value: Callable[[Tensor | None], Tensor], features: int) -> Slice:
        """Allocate features that are constant over the image: `value(context)`, (B, features)."""
        self.size += features
        allocated = Slice(self.size - features, features)
        self.constants.append((allocated, value))
        return allocated

    def bias(self, value: Tensor, label: Callable[[Tensor | None], Tensor] | None = None) -> Slice:
        """Allocate a bias for `linear` to start from, plus the contribution of the class label."""
        if label is None:
            return self.constant(lambda context: value, len(value))
        return self.constant(lambda context: value + label(context), len(value))

    def group_slice(self, whole: Slice, group: int) -> Slice:
        """The part of a slice that belongs to one channel group."""
        size = whole.size // self.groups
        return whole.part(group * size, size)

    def current_group(self, whole: T) -> T:
        """The current channel group's part of a slice, or its columns of a weight."""
        if isinstance(whole, Slice):
            return self.group_slice(whole, self.group)
        return whole.chunk(self.groups, dim=1)[self.group]

    def up_to_group(self, scratch: Slice) -> Slice:
        """The channel groups of a scratch slice up to the current one, and the 1 in front of them."""
        return scratch.part(-1, 1 + scratch.size // self.groups * (self.group + 1))

    def linear(self, source: Slice, weight: Tensor, out: Slice, base: Slice | None = None) -> None:
        """Record out = source @ weight[: source.size], plus base; weight is (in, out)."""
        self.add(Opcode.LINEAR, source, out, base, weight=weight[: source.size])

    def add(
        self, code: Opcode, a: Slice, out: Slice, b: Slice | None = None, **options: Any
    ) -> None:
        """Record an operation for the current channel group or row stage."""
        if options.get("weight") is not None:
            options["weight"] = options["weight"].detach().contiguous()
        options["phase"] = self.phase
        self._recorded.append(Operation(code, a, out, b, **options))
