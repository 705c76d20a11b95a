"""PixelRNN: LSTMs that run over the rows or the diagonals of an image.

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

from arlm.core import Spec
from arlm.layers.checks import check_sizes
from arlm.layers.class_embedding import ClassEmbedding
from arlm.layers.image_lstm import DiagonalLayer, RowLayer, diagonal_order, reorder
from arlm.layers.masked_conv import MaskedConv2d
from arlm.pixels.base import PixelNetwork
from arlm.pixels.head import Head, dense, record_first
from arlm.programs.program import FeatureBuffer, Opcode, Program, Slice


class PixelRNN(PixelNetwork):
    """7x7 mask A, `depth` LSTM layers with residual and skip connections, two 1x1 layers, softmax.

    An LSTM layer maps 2h features to h hidden features. One 1x1 layer of mask B maps these back to 2h for the
    residual connection, another one for the skip connection to the head. The class label's embedding is added
    to the first layer.

    Args:
        spec: of shape (H, W, C).
        width: h, hidden features of an LSTM.
        depth: LSTM layers.
        head_width: features of the layer before the softmax.
        dropout: probability of zeroing a hidden feature, in [0, 1).

    Shapes: tokens (B, T), context (B, 1) or None -> logits (B, T, V), T <= H * W * C.
    """

    layers: Any  # nn.ModuleList has no element type
    ups: Any
    skips: Any
    kind: ClassVar[Any]
    order: Tensor | None  # order in which the layers store the pixels; None for raster order
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
        self.width, self.depth = width, depth
        self.register_buffer("order", None, persistent=False)
        self.label = ClassEmbedding(spec, 2 * width)
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
        """(B, f, H, W) -> (H * W, B, f) in `order`."""
        x = rearrange(maps, "b f h w -> (h w) b f")
        return x if order is None else reorder(x, order)

    def build_program(self, program: Program) -> None:
        width, channels = self.width, self.groups
        image = program.image = program.feature_buffer(channels, left=3, right=3, rows=4)
        first = program.feature_buffer(2 * width)  # the first layer's sums over the rows above
        # Inputs of the layers and of the head, and the gates' sums over the rows above.
        inputs = program.feature_buffer(2 * width, left=1, count=self.depth + 1)
        before = program.feature_buffer(4 * width, count=self.depth)
        states = program.feature_buffer(width, left=1, right=1, count=self.depth)
        cells = program.feature_buffer(width, left=1, count=self.depth)
        gates, skips = program.scratch(4 * width), program.scratch(2 * width)
        hidden = [program.scratch(width) for _ in self.layers]
        record_head = self.head.build_program(program)
        record_cell, record_rows = self.build_layers(program, inputs, before, states, cells)
        for program.group in range(channels):
            current, upto = program.current_group, program.up_to_group
            earlier, x = image.window(4, program.group / channels), inputs[0].window()
            program.linear(earlier, current(self.first.here()), current(x), current(first.window()))
            for index, (up, skip) in enumerate(zip(self.ups, self.skips, strict=True)):
                record_cell(index, gates, hidden[index])
                source, x = upto(hidden[index]), inputs[index].window()
                accumulated = current(skips) if index else None
                program.linear(source, current(dense(skip)), current(skips), accumulated)
                program.linear(
                    source, current(dense(up)), current(inputs[index + 1].window()), current(x)
                )
            x = inputs[self.depth].window()
            program.add(Opcode.ADD, current(x), current(skips), current(skips))
            record_head(skips)
        record_rows()
        program.row_stage()
        bias = program.bias(self.first.bias, self.label.vector)
        record_first(program, self.first, first.window(), bias)

    @abstractmethod
    def build_layers(
        self,
        program: Program,
        inputs: FeatureBuffer,
        before: FeatureBuffer,
        states: FeatureBuffer,
        cells: FeatureBuffer,
    ) -> tuple[Callable[[int, Slice, Slice], None], Callable[[], None]]:
        """Allocate the layers' own buffers; `before` holds the gates' sums over the rows above.

        Returns: a function (layer, gates, hidden) that records a layer at the pixel, and one that records the
        row stages of all layers.
        """


class RowLSTM(PixelRNN):
    """LSTMs from row to row; the receptive field is the triangle above a pixel. Arguments as `PixelRNN`."""

    kind = RowLayer

    def build_layers(self, program, inputs, before, states, cells):
        width, layers = self.width, self.layers
        cells_above = program.feature_buffer(width, count=self.depth)  # cells of the row above
        initial = torch.stack([layer.initial[0] for layer in layers])  # (depth, 2, h)

        def begin(workspace: Tensor) -> None:
            states.view(workspace)[:, :, 0, 1:-1] = initial[:, None, 0]
            cells.view(workspace)[:, :, 0, 1:] = initial[:, None, 1]

        program.initialisers.append(begin)

        def record_cell(index: int, gates: Slice, hidden: Slice) -> None:
            current = program.current_group
            source = inputs[index].window(2, (program.group + 1) / program.groups)
            base = current(before[index].window())
            program.linear(source, current(layers[index].input.here()), current(gates), base)
            cell, cell_above = current(cells[index].window()), current(cells_above[index].window())
            program.add(Opcode.LSTM, current(gates), current(hidden), cell_above, c=cell)
            program.add(Opcode.COPY, current(hidden), current(states[index].window()))

        def record_rows() -> None:
            program.row_stage()
            for index, layer in enumerate(layers):
                total, bias = before[index].window(), program.bias(layer.input.bias)
                program.linear(states[index].span(1, 1), layer.state.flatten(0, 1), total, bias)
                program.add(Opcode.COPY, cells[index].window(), cells_above[index].window())

        return record_cell, record_rows


class DiagonalBiLSTM(PixelRNN):
    """LSTMs along the diagonals in both directions; the receptive field is all earlier pixels.

    Hidden states of the right-to-left direction in row i - 1 are added to those of row i. In the paper's
    network, mask A hides a pixel from its own features, so the last pixel of the row above reaches only the
    last columns. With `complete`, the right-to-left direction also reads a 7x7 layer of mask B. This is
    causal because of the shift by one row.

    Args:
        complete: add the layer of mask B; False is the paper's network.

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

    def build_layers(self, program, inputs, before, states, cells):
        width, layers = self.width, self.layers
        # The right-to-left direction for the row above: states, cells, and gate sums before the scan.
        mirrored = program.feature_buffer(width, right=1, count=self.depth)
        mirrored_cells = program.feature_buffer(width, right=1, count=self.depth)
        sums = program.feature_buffer(4 * width, count=self.depth)
        more, mirrored_gates = program.feature_buffer(2 * width), program.scratch(4 * width)
        # Recurrent weights within a row and from the row above, (depth, direction, h, 4h) each.
        within_row, from_above = torch.stack([layer.state for layer in layers]).unbind(2)
        initial = torch.stack([layer.initial for layer in layers])  # (depth, direction, 2, h)

        def begin(workspace: Tensor) -> None:
            for number, maps in enumerate((states, cells)):
                maps.view(workspace)[:, :, 0, 0] = initial[:, 0, number]
            for number, maps in enumerate((mirrored, mirrored_cells)):
                maps.view(workspace)[:, :, 0, -1] = initial[:, 1, number]

        program.initialisers.append(begin)

        def record_cell(index: int, gates: Slice, hidden: Slice) -> None:
            current = program.current_group
            source = inputs[index].window(1, (program.group + 1) / program.groups)
            left, left_cell = (m[index].window(2, 0) for m in (states, cells))
            program.linear(
                left, current(within_row[index, 0]), current(gates), current(before[index].window())
            )
            program.linear(
                source, current(layers[index].input.here()), current(gates), current(gates)
            )
            state, cell = current(states[index].window()), current(cells[index].window())
            program.add(Opcode.LSTM, current(gates), state, current(left_cell), c=cell)
            program.add(Opcode.ADD, state, current(hidden), current(mirrored[index].window()))

        def record_rows() -> None:
            """The right-to-left direction of the row above, then the gates' sums over the row above."""
            program.row_stage(after=1)
            image, last = program.image, more.window()
            if self.complete:
                kernels = rearrange(self.last.masked(), "o i r k -> r (k i) o")
                for row, kernel in enumerate(kernels):
                    base = last if row else program.bias(self.last.bias)
                    program.linear(image.span(3, 3, row), kernel, last, base)
            for index, layer in enumerate(layers):
                total, weight = sums[index].window(), layer.mirror.weight.T
                program.linear(
                    inputs[index].window(), weight, total, program.bias(layer.mirror.bias)
                )
                if self.complete:
                    program.linear(last, weight, total, total)
                program.linear(mirrored[index].window(), from_above[index, 1], total, total)
            program.row_stage(scan=True, after=1)
            for index in range(self.depth):
                right, right_cell = (m[index].span(-1, 1) for m in (mirrored, mirrored_cells))
                total, gates = sums[index].window(), mirrored_gates
                program.linear(right, within_row[index, 1], gates, total)
                new = [m[index].window() for m in (mirrored, mirrored_cells)]
                for group in range(program.groups):
                    pieces = [program.group_slice(p, group) for p in (gates, right_cell, *new)]
                    program.add(Opcode.LSTM, pieces[0], pieces[2], pieces[1], c=pieces[3])
            program.row_stage()
            for index, layer in enumerate(layers):
                total, bias = before[index].window(), program.bias(layer.input.bias)
                program.linear(states[index].window(), from_above[index, 0], total, bias)

        return record_cell, record_rows
