"""Gated PixelCNN: a vertical and a horizontal stack, so that no earlier pixel is out of sight.

References:
    | Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016), section 2
    | https://arxiv.org/abs/1606.05328
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from arlm.core import Spec, check_sizes
from arlm.errors import require
from arlm.layers.class_embedding import Label
from arlm.layers.masked_conv import MaskedConv2d
from arlm.pixels.base import Head, RasterNetwork, RowStep, dense
from arlm.programs.program import Code, Tape


def tanh_gate(x: Tensor, groups: int) -> Tensor:
    """tanh(a) * sigmoid(b), (B, 2f, H, W) -> (B, f, H, W); each group of channels holds its own a, b."""
    a, b = x.unflatten(1, (groups, 2, -1)).unbind(2)
    return (a.tanh() * b.sigmoid()).flatten(1, 2)


class GatedLayer(nn.Module):
    """Figure 2 of the paper: the vertical stack feeds the horizontal one through a 1x1 layer.

        vertical      horizontal       of the first layer: v sees rows above only, h (mask A) not #;
        1 1 1         . . .            later v sees its own row too, since that knows only rows above
        1 # 1         1 # .

    Args:
        place: the "first" layer reads the image; the "last" feeds nothing but its skip.
        in_features, width: of both stacks.
        kernel: odd width n of the vertical n x n and the horizontal 1 x n.
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
        self.horizontal_label = Label(spec, 2 * width)
        if not last:
            self.vertical_label = Label(spec, 2 * width)
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


class GatedPixelCNN(RasterNetwork):
    """A 7x7 layer and `depth` n x n layers of two gated stacks; skips of all layers to the head.

    Args:
        spec: of shape (H, W, C).
        width: p, features of each stack.
        depth: layers after the first.
        kernel: odd width n of the later layers.
        head_width: features of the layer before the softmax.
        dropout: probability of zeroing a feature of the horizontal stack, in [0, 1).

    Shapes: tokens (B, T), context (B, 1) or None -> logits (B, T, V), T <= H * W * C.
    """

    layers: Any  # nn.ModuleList does not tell what it holds

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
        self.head_width, self.dropout = head_width, dropout
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

    def plan(self, tape: Tape) -> RowStep:
        width, channels, layers = self.width, self.groups, self.layers
        image = tape.image = tape.map(channels, left=3, right=3, rows=4)
        reach = self.kernel // 2
        vertical = tape.map(width, left=reach, right=reach, rows=reach + 1, count=self.depth)
        before = tape.map(2 * width, count=len(layers))  # what the vertical stack says
        states = tape.map(width, left=reach, count=self.depth)  # the horizontal stack
        gates, skips = tape.cell(2 * width), tape.cell(width)
        gated = [tape.cell(width) for _ in layers]
        record_head = self.head.plan(tape)
        for tape.group in range(channels):
            mine, seen = tape.mine, tape.seen
            for index, layer in enumerate(layers):
                if layer.first:
                    source = image.window(4, tape.group / channels)
                    so_far = residual = None
                else:
                    source = states[index - 1].window(reach + 1, (tape.group + 1) / channels)
                    so_far, residual = mine(skips), mine(states[index - 1].window())
                known, y = mine(before[index].window()), gated[index]
                tape.linear(source, mine(layer.horizontal.here()), mine(gates), known)
                tape.add(Code.TANH_GATE, mine(gates), mine(y))
                tape.linear(seen(y), mine(dense(layer.skip)), mine(skips), so_far)
                if not layer.last:
                    out = mine(states[index].window())
                    tape.linear(seen(y), mine(dense(layer.out)), out, residual)
            record_head(skips)

        tape.at_row()  # the whole vertical stack, which sees rows above only
        tape.shift(image)
        ups = tape.map(2 * width)
        for index, layer in enumerate(layers):
            rows, side = (image, 3) if layer.first else (vertical[index - 1], reach)
            up, told = ups.window(), before[index].window()
            for row, kernel in enumerate(rearrange(layer.vertical.weight, "o i r k -> r (k i) o")):
                base = up if row else tape.fixed(layer.vertical.bias)
                tape.linear(rows.span(side, side, row), kernel, up, base)
            bias = tape.fixed(
                layer.link.bias + layer.horizontal.bias, layer.horizontal_label.vector
            )
            tape.linear(up, layer.link.weight[:, :, 0, 0].T, told, bias)
            if not layer.last:
                label = tape.constant(layer.vertical_label.vector, 2 * width)
                tape.add(Code.ADD, up, up, label)
                tape.shift(vertical[index])
                tape.add(Code.TANH_GATE, up, vertical[index].window())
        return None
