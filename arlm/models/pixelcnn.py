"""PixelCNN: masked convolutions over an image as a sequence of pixels.

References:
    | Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016), sections 3.3-3.4
    | https://arxiv.org/abs/1601.06759
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from arlm.core import Spec
from arlm.layers.checks import check_sizes
from arlm.layers.class_embedding import ClassEmbedding
from arlm.layers.masked_conv import MaskedConv2d
from arlm.pixels.base import PixelNetwork
from arlm.pixels.head import Head, dense, record_first
from arlm.programs.program import Opcode, Program


class ResidualBlock(nn.Module):
    """x + 1x1(relu(3x3(relu(1x1(relu(x)))))): 2h -> h -> h -> 2h features, all mask B (figure 5)."""

    def __init__(self, width: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.down = MaskedConv2d("B", 2 * width, width, 1, channels)
        self.conv = MaskedConv2d("B", width, width, 3, channels)
        self.up = MaskedConv2d("B", width, 2 * width, 1, channels)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.down(F.relu(x)))
        return x + self.up(self.drop(F.relu(self.conv(y))))


class PixelCNN(PixelNetwork):
    """The paper's PixelCNN: 7x7 mask A, `depth` residual blocks, two 1x1 layers, softmax over V levels.

    The receptive field of a 3x3 layer (mask B includes the centre #, mask A does not):

        . . . . .        The receptive field of the whole network is a triangle that widens upwards. Earlier
        . 1 1 1 .        pixels to the right of its edge are in the blind spot (docs/receptive_fields.png).
        . 1 # . .

    With C > 1 channels, features are split into C groups (R, G, B). The centre tap connects a group to itself
    and to earlier groups, so a channel is conditioned on the earlier channels of its own pixel (see
    `arlm.layers.masked_conv.raster_mask`). The class label's embedding is added to the first layer.

    Args:
        spec: of shape (H, W, C).
        width: h, features inside a block; 2h between blocks.
        depth: residual blocks.
        head_width: features of the layer before the softmax.
        dropout: probability of zeroing a feature in a block, in [0, 1).

    Shapes: tokens (B, T), context (B, 1) or None -> logits (B, T, V), T <= H * W * C.
    """

    blocks: Any  # nn.ModuleList has no element type

    def __init__(
        self,
        spec: Spec,
        width: int = 16,
        depth: int = 15,
        head_width: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, width=width, head_width=head_width)
        check_sizes(width=width, depth=depth, head_width=head_width, dropout=dropout)
        channels = self.groups
        self.width, self.depth = width, depth
        self.label = ClassEmbedding(spec, 2 * width)
        self.first = MaskedConv2d("A", channels, 2 * width, 7, channels)
        self.blocks = nn.ModuleList(ResidualBlock(width, channels, dropout) for _ in range(depth))
        self.head = Head(2 * width, head_width, spec)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.first(self.image(tokens)) + self.label(context)
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
        return self.logits(self.head(x), tokens.shape[1])

    def build_program(self, program: Program) -> None:
        width, channels = self.width, self.groups
        image = program.image = program.feature_buffer(channels, left=3, right=3, rows=4)
        first = program.feature_buffer(2 * width)  # the first layer's sums over the rows above
        # Inputs of the 3x3 layers, and the sums of these layers over the row above.
        maps = program.feature_buffer(width, left=1, right=1, count=self.depth)
        before = program.feature_buffer(width, count=self.depth)
        x, record_head = program.scratch(2 * width), self.head.build_program(program)
        rectified = [program.scratch(2 * width) for _ in self.blocks]
        inner = [program.scratch(width) for _ in self.blocks]

        for program.group in range(channels):
            current, upto = program.current_group, program.up_to_group
            earlier = image.window(4, program.group / channels)
            program.linear(earlier, current(self.first.here()), current(x), current(first.window()))
            for index, block in enumerate(self.blocks):
                y = maps[index].window()
                program.add(Opcode.RELU, current(x), current(rectified[index]))
                program.linear(upto(rectified[index]), current(dense(block.down)), current(y))
                program.add(Opcode.RELU, current(y), current(y))
                program.linear(
                    maps[index].window(2, (program.group + 1) / channels),
                    current(block.conv.here()),
                    current(inner[index]),
                    current(before[index].window()),
                )
                program.add(Opcode.RELU, current(inner[index]), current(inner[index]))
                program.linear(upto(inner[index]), current(dense(block.up)), current(x), current(x))
            record_head(x)

        program.row_stage()
        bias = program.bias(self.first.bias, self.label.vector)
        record_first(program, self.first, first.window(), bias)
        for index, block in enumerate(self.blocks):
            above = rearrange(block.conv.above(), "o i 1 k -> (k i) o")
            sums, bias = before[index].window(), program.bias(block.conv.bias)
            program.linear(maps[index].span(1, 1), above, sums, bias)
