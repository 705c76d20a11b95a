"""PixelRNN: an image scored by LSTMs that run along its rows, or along its diagonals.

References:
    | Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016), sections 3.1-3.3
    | https://arxiv.org/abs/1601.06759
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn

from arlm.core import Spec, check_sizes
from arlm.layers.class_embedding import Label
from arlm.layers.image_lstm import DiagonalLayer, RowLayer, diagonal_order, reorder
from arlm.layers.masked_conv import MaskedConv2d
from arlm.pixels.base import Head, RasterNetwork, RowStep, dense, record_first
from arlm.programs.program import Code, Map, Part, Tape


class PixelRNN(RasterNetwork):
    """7x7 mask A, `depth` LSTM layers with residual and skip connections, two 1x1 layers, softmax.

    Each layer takes 2h features to hidden states of h and back by a 1x1 layer of mask B; another 1x1
    layer takes them to the head. A class label adds to the first layer.

    Args:
        spec: of shape (H, W, C).
        width: h, features of hidden states.
        depth: LSTM layers.
        head_width: features of the layer before the softmax.
        dropout: probability of zeroing a hidden feature, in [0, 1).

    Shapes: tokens (B, T), context (B, 1) or None -> logits (B, T, V), T <= H * W * C.
    """

    layers: Any  # nn.ModuleList does not tell what it holds
    ups: Any
    skips: Any
    kind: ClassVar[Any]
    order: Tensor | None  # of the pixels, where it is not raster order
    complete: bool = False
    last: Any

    def __init__(
        self,
        spec: Spec,
        width: int = 16,
        depth: int = 7,
        head_width: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, width=width, head_width=head_width)
        check_sizes(width=width, depth=depth, head_width=head_width, dropout=dropout)
        channels = self.groups
        self.width, self.depth, self.head_width, self.dropout = width, depth, head_width, dropout
        self.register_buffer("order", None, persistent=False)
        self.label = Label(spec, 2 * width)
        self.first = MaskedConv2d("A", channels, 2 * width, 7, channels)
        self.layers = nn.ModuleList(self.kind(width, spec) for _ in range(depth))
        self.ups, self.skips = (
            nn.ModuleList(MaskedConv2d("B", width, 2 * width, 1, channels) for _ in range(depth))
            for _ in range(2)
        )
        self.drop = nn.Dropout(dropout)
        self.head = Head(2 * width, head_width, spec)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        image, order = self.image(tokens), self.order
        x = self._pixels(self.first(image) + self.label(context), order)
        more = self._pixels(self.last(image), order) if self.complete else 0.0
        skips: Tensor | float = 0.0
        for layer, up, skip in zip(self.layers, self.ups, self.skips, strict=True):
            hidden = self.drop(layer(x, more))
            x = x + up.at_pixels(hidden)
            skips = skips + skip.at_pixels(hidden)
        y = self.head.at_pixels(x + skips)
        if order is not None:
            y = reorder(y, order.argsort())
        return rearrange(y, "p b (c v) -> b (p c) v", c=self.groups)[:, : tokens.shape[1]]

    def _pixels(self, maps: Tensor, order: Tensor | None) -> Tensor:
        """(B, f, H, W) -> (H * W, B, f) in the order of the layers."""
        x = rearrange(maps, "b f h w -> (h w) b f")
        return x if order is None else reorder(x, order)

    def plan(self, tape: Tape) -> RowStep:
        width, channels = self.width, self.groups
        image = tape.image = tape.map(channels, left=3, right=3, rows=4)
        first = tape.map(2 * width)  # what the first layer sees of the rows above
        inputs = tape.map(2 * width, left=1, count=self.depth + 1)  # of the layers, and of the head
        before = tape.map(4 * width, count=self.depth)  # gates, as far as the rows above decide
        states = tape.map(width, left=1, right=1, count=self.depth)
        cells = tape.map(width, left=1, count=self.depth)
        gates, skips = tape.cell(4 * width), tape.cell(2 * width)
        hidden = [tape.cell(width) for _ in self.layers]
        record_head = self.head.plan(tape)
        record_cell, record_rows = self.plan_layers(tape, inputs, before, states, cells)
        for tape.group in range(channels):
            mine, seen = tape.mine, tape.seen
            earlier, x = image.window(4, tape.group / channels), inputs[0].window()
            tape.linear(earlier, mine(self.first.here()), mine(x), mine(first.window()))
            for index, (up, skip) in enumerate(zip(self.ups, self.skips, strict=True)):
                record_cell(index, gates, hidden[index])
                source, x = seen(hidden[index]), inputs[index].window()
                so_far = mine(skips) if index else None
                tape.linear(source, mine(dense(skip)), mine(skips), so_far)
                tape.linear(source, mine(dense(up)), mine(inputs[index + 1].window()), mine(x))
            x = inputs[self.depth].window()
            tape.add(Code.ADD, mine(x), mine(skips), mine(skips))
            record_head(skips)
        record_rows()
        tape.at_row()
        bias = tape.fixed(self.first.bias, self.label.vector)
        record_first(tape, self.first, first.window(), bias)
        return None

    @abstractmethod
    def plan_layers(
        self, tape: Tape, inputs: Map, before: Map, states: Map, cells: Map
    ) -> tuple[Callable[[int, Part, Part], None], Callable[[], None]]:
        """How to record a layer's hidden state at the pixel, and what all layers do when a row begins."""


class RowLSTM(PixelRNN):
    """Rows from top to bottom; a pixel sees the triangle above it. Arguments and shapes as `PixelRNN`."""

    kind = RowLayer

    def plan_layers(self, tape, inputs, before, states, cells):
        width, layers = self.width, self.layers
        kept = tape.map(width, count=self.depth)  # cells of the row above
        initial = torch.stack([layer.initial[0] for layer in layers])  # (depth, 2, h)

        def begin(arena: Tensor) -> None:
            states.view(arena)[:, :, 0, 1:-1] = initial[:, None, 0]
            cells.view(arena)[:, :, 0, 1:] = initial[:, None, 1]

        tape.beginnings.append(begin)

        def record_cell(index: int, gates: Part, hidden: Part) -> None:
            mine = tape.mine
            source = inputs[index].window(2, (tape.group + 1) / tape.groups)
            known = mine(before[index].window())
            tape.linear(source, mine(layers[index].input.here()), mine(gates), known)
            cell, memory = mine(cells[index].window()), mine(kept[index].window())
            tape.add(Code.LSTM, mine(gates), mine(hidden), memory, c=cell)
            tape.add(Code.COPY, mine(hidden), mine(states[index].window()))

        def record_rows() -> None:
            tape.at_row()
            for index, layer in enumerate(layers):
                told, bias = before[index].window(), tape.fixed(layer.input.bias)
                tape.linear(states[index].span(1, 1), layer.state.flatten(0, 1), told, bias)
                tape.add(Code.COPY, cells[index].window(), kept[index].window())

        return record_cell, record_rows


class DiagonalBiLSTM(PixelRNN):
    """Both diagonals; a pixel sees everything before it.

    The right-to-left half of row i - 1 is added to row i. Since mask A hides a pixel from its own
    features, in the paper's form no pixel left of the last columns ever sees the last pixel of the row
    above. `complete` closes that gap: the right-to-left half also reads a 7x7 layer of mask B, and the
    shift by a row keeps it from seeing the future.

    Args:
        complete: read that layer too; False is the paper's form.

    All other arguments and shapes as `PixelRNN`.
    """

    kind = DiagonalLayer

    def __init__(
        self,
        spec: Spec,
        width: int = 16,
        depth: int = 7,
        head_width: int = 32,
        dropout: float = 0.0,
        complete: bool = True,
    ) -> None:
        super().__init__(spec, width, depth, head_width, dropout)
        self.complete = complete
        self.order = diagonal_order(*spec.shape[:2])
        if complete:
            self.last = MaskedConv2d("B", self.groups, 2 * width, 7, self.groups)

    def plan_layers(self, tape, inputs, before, states, cells):
        width, layers = self.width, self.layers
        mirrored = tape.map(
            width, right=1, count=self.depth
        )  # right-to-left states, of the row above
        mirrored_cells = tape.map(width, right=1, count=self.depth)
        sums = tape.map(4 * width, count=self.depth)  # gates of that half, but for what is scanned
        more, mirrored_gates = tape.map(2 * width), tape.cell(4 * width)
        here, above = torch.stack([layer.state for layer in layers]).unbind(2)  # (depth, 2, h, 4h)
        initial = torch.stack([layer.initial for layer in layers])  # (depth, direction, 2, h)

        def begin(arena: Tensor) -> None:
            for number, maps in enumerate((states, cells)):
                maps.view(arena)[:, :, 0, 0] = initial[:, 0, number]
            for number, maps in enumerate((mirrored, mirrored_cells)):
                maps.view(arena)[:, :, 0, -1] = initial[:, 1, number]

        tape.beginnings.append(begin)

        def record_cell(index: int, gates: Part, hidden: Part) -> None:
            mine, first = tape.mine, inputs[index].window(1, (tape.group + 1) / tape.groups)
            left, left_cell = (m[index].window(2, 0) for m in (states, cells))
            tape.linear(left, mine(here[index, 0]), mine(gates), mine(before[index].window()))
            tape.linear(first, mine(layers[index].input.here()), mine(gates), mine(gates))
            state, cell = mine(states[index].window()), mine(cells[index].window())
            tape.add(Code.LSTM, mine(gates), state, mine(left_cell), c=cell)
            tape.add(Code.ADD, state, mine(hidden), mine(mirrored[index].window()))

        def record_rows() -> None:
            """The right-to-left half of the row above, and what its left-to-right half says."""
            tape.at_row(after=1)
            image, seen = tape.image, more.window()
            if self.complete:
                kernels = rearrange(self.last.masked(), "o i r k -> r (k i) o")
                for row, kernel in enumerate(kernels):
                    base = seen if row else tape.fixed(self.last.bias)
                    tape.linear(image.span(3, 3, row), kernel, seen, base)
            for index, layer in enumerate(layers):
                total, weight = sums[index].window(), layer.mirror.weight.T
                tape.linear(inputs[index].window(), weight, total, tape.fixed(layer.mirror.bias))
                if self.complete:
                    tape.linear(seen, weight, total, total)
                tape.linear(mirrored[index].window(), above[index, 1], total, total)
            tape.at_row(scan=True, after=1)
            for index in range(self.depth):
                right, right_cell = (m[index].span(-1, 1) for m in (mirrored, mirrored_cells))
                total, gates = sums[index].window(), mirrored_gates
                tape.linear(right, here[index, 1], gates, total)
                new = [m[index].window() for m in (mirrored, mirrored_cells)]
                for group in range(tape.groups):
                    pieces = [tape.piece(p, group) for p in (gates, right_cell, *new)]
                    tape.add(Code.LSTM, pieces[0], pieces[2], pieces[1], c=pieces[3])
            tape.at_row()
            for index, layer in enumerate(layers):
                told, bias = before[index].window(), tape.fixed(layer.input.bias)
                tape.linear(states[index].window(), above[index, 0], told, bias)

        return record_cell, record_rows
