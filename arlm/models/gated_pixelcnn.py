"""Gated PixelCNN: a vertical and a horizontal stack of gated layers, without a blind spot.

References:
    | Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016), section 2
    | https://arxiv.org/abs/1606.05328
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from arlm.core import Spec
from arlm.errors import require
from arlm.layers.checks import check_sizes
from arlm.layers.class_embedding import ClassEmbedding
from arlm.layers.masked_conv import MaskedConv2d
from arlm.pixels.base import PixelNetwork
from arlm.pixels.head import Head, dense
from arlm.programs.program import Opcode, Program


def tanh_gate(x: Tensor, groups: int) -> Tensor:
    """tanh(a) * sigmoid(b), (B, 2f, H, W) -> (B, f, H, W); each channel group has its own a and b."""
    a, b = x.unflatten(1, (groups, 2, -1)).unbind(2)
    return (a.tanh() * b.sigmoid()).flatten(1, 2)


class GatedLayer(nn.Module):
    """Figure 2 of the paper: the vertical stack feeds the horizontal one through a 1x1 layer.

        vertical      horizontal
        1 1 1         . . .            first layer: the vertical kernel covers only the rows above, and the
        1 # 1         1 # .            horizontal one has mask A; later layers include # in both

    Args:
        place: "first" reads the image; "last" has a skip output only; "inner" otherwise.
        in_features, width: features of the input and of the output of both stacks.
        kernel: odd width n of the vertical n x n and of the horizontal 1 x n kernel.
    """

    def __init__(
        self, place: str, in_features: int, width: int, kernel: int, dropout: float, spec: Spec
    ) -> None:
        super().__init__()
        channels, first, last = spec.shape[2], place == "first", place == "last"
        self.first, self.last, self.channels = first, last, channels
        self.rows = kernel // 2 + (not first)
        self.vertical = nn.Conv2d(in_features, 2 * width, (self.rows, kernel))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.horizontal = MaskedConv2d(
            "A" if first else "B", in_features, 2 * width, (1, kernel), channels
        )
        self.horizontal_label = ClassEmbedding(spec, 2 * width)
        if not last:
            self.vertical_label = ClassEmbedding(spec, 2 * width)
            self.out = MaskedConv2d("B", width, width, 1, channels)
        self.skip = MaskedConv2d("B", width, width, 1, channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, v: Tensor, h: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        side, top = self.vertical.kernel_size[1] // 2, self.rows - (not self.first)
        gates = self.vertical(F.pad(v, (side, side, top, 0)))[:, :, : v.shape[2]]
        link = self.link(gates) + self.horizontal_label(context)
        y = self.drop(tanh_gate(self.horizontal(h) + link, self.channels))
        if not self.last:
            v = tanh_gate(gates + self.vertical_label(context), 1)
            h = self.out(y) if self.first else h + self.out(y)
        return v, h, self.skip(y)


class GatedPixelCNN(PixelNetwork):
    """A 7x7 layer and `depth` n x n layers of two gated stacks, with skip connections from all to the head.

    Args:
        spec: of shape (H, W, C).
        width: p, features of each stack.
        depth: layers after the first.
        kernel: odd width n of the later layers.
        head_width: features of the layer before the softmax.
        dropout: probability of zeroing a feature of the horizontal stack, in [0, 1).

    Shapes: tokens (B, T), context (B, 1) or None -> logits (B, T, V), T <= H * W * C.
    """

    layers: Any  # nn.ModuleList has no element type

    def __init__(
        self,
        spec: Spec,
        width: int = 64,
        depth: int = 8,
        kernel: int = 3,
        head_width: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, width=width, head_width=head_width)
        check_sizes(width=width, depth=depth, kernel=kernel, head_width=head_width, dropout=dropout)
        require(kernel % 2 == 1, "model.net.kernel", kernel, "choose an odd number")
        self.width, self.depth, self.kernel = width, depth, kernel
        sizes: list[tuple[str, int, int, int]] = [("first", self.groups, width, 7)]
        sizes += (depth - 1) * [("inner", width, width, kernel)] + [("last", width, width, kernel)]
        self.layers = nn.ModuleList(GatedLayer(*size, dropout, spec) for size in sizes)
        self.head = Head(width, head_width, spec)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        v = h = self.image(tokens)
        skips: Tensor | float = 0.0
        for layer in self.layers:
            v, h, skip = layer(v, h, context)
            skips = skips + skip
        return self.logits(self.head(skips), tokens.shape[1])

    def build_program(self, program: Program) -> None:
        width, channels, layers = self.width, self.groups, self.layers
        image = program.image = program.feature_buffer(channels, left=3, right=3, rows=4)
        reach = self.kernel // 2
        vertical = program.feature_buffer(
            width, left=reach, right=reach, rows=reach + 1, count=self.depth
        )
        # Contribution of the vertical stack to the horizontal one, and the horizontal stack's outputs.
        before = program.feature_buffer(2 * width, count=len(layers))
        states = program.feature_buffer(width, left=reach, count=self.depth)
        gates, skips = program.scratch(2 * width), program.scratch(width)
        gated = [program.scratch(width) for _ in layers]
        record_head = self.head.build_program(program)
        for program.group in range(channels):
            current, upto = program.current_group, program.up_to_group
            for index, layer in enumerate(layers):
                if layer.first:
                    source = image.window(4, program.group / channels)
                    accumulated = residual = None
                else:
                    source = states[index - 1].window(reach + 1, (program.group + 1) / channels)
                    accumulated, residual = current(skips), current(states[index - 1].window())
                base, y = current(before[index].window()), gated[index]
                program.linear(source, current(layer.horizontal.here()), current(gates), base)
                program.add(Opcode.TANH_GATE, current(gates), current(y))
                program.linear(upto(y), current(dense(layer.skip)), current(skips), accumulated)
                if not layer.last:
                    out = current(states[index].window())
                    program.linear(upto(y), current(dense(layer.out)), out, residual)
            record_head(skips)

        program.row_stage()  # the vertical stack, which depends on finished rows only
        program.shift_up(image)
        ups = program.feature_buffer(2 * width)
        for index, layer in enumerate(layers):
            rows, side = (image, 3) if layer.first else (vertical[index - 1], reach)
            up, contribution = ups.window(), before[index].window()
            for row, kernel in enumerate(rearrange(layer.vertical.weight, "o i r k -> r (k i) o")):
                base = up if row else program.bias(layer.vertical.bias)
                program.linear(rows.span(side, side, row), kernel, up, base)
            bias = program.bias(
                layer.link.bias + layer.horizontal.bias, layer.horizontal_label.vector
            )
            program.linear(up, layer.link.weight[:, :, 0, 0].T, contribution, bias)
            if not layer.last:
                label = program.constant(layer.vertical_label.vector, 2 * width)
                program.add(Opcode.ADD, up, up, label)
                program.shift_up(vertical[index])
                program.add(Opcode.TANH_GATE, up, vertical[index].window())
