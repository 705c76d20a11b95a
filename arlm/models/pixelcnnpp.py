"""PixelCNN++: two streams at three resolutions with skip connections, and a mixture of logistics.

References:
    | PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
    | Modifications (Salimans, Karpathy, Chen, Kingma, 2017) | https://arxiv.org/abs/1701.05517
    | https://github.com/openai/pixel-cnn
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from arlm.core import Spec
from arlm.layers.checks import check_sizes
from arlm.layers.shifted_conv import DownConv2d, DownRightConv2d, shift_down, shift_right
from arlm.pixels.head import dense, write_row
from arlm.pixels.mixture import MixturePixelNetwork
from arlm.pixels.two_streams import (
    SCALES,
    AboveRow,
    GatedResidual,
    LeftStack,
    Upsample,
    above_windows,
    shift_rows,
)
from arlm.programs.program import Opcode, Program


class PixelCNNPlusPlus(MixturePixelNetwork):
    """A U-Net of gated layers: up through 1, 1/2 and 1/4 of the size, and down with skip connections.

    Stream `above` depends on the complete rows above a pixel. Stream `left` depends on pixels above and to
    the left, and reads `above`, so that there is no blind spot. Unlike the paper's network, this one has
    neither weight normalisation nor data-dependent initialisation.

    Args:
        spec: of shape (H, W, C).
        width: features of each stream.
        depth: gated layers at each resolution on the way up; one more on the way down, except at 1/4.
        mixtures: logistics in a pixel's mixture; 0 is a softmax over the levels of a single channel.
        dropout: probability of zeroing a feature in a gated layer, in [0, 1).

    Shapes: tokens (B, T), context (B, 1) or None -> logits (B, T, V), T <= H * W * C.
    """

    above_up: Any  # nn.ModuleList has no element type
    above_down: Any
    above_shrink: Any
    above_grow: Any
    left_up: Any
    left_down: Any
    left_shrink: Any
    left_grow: Any

    def __init__(
        self,
        spec: Spec,
        width: int = 160,
        depth: int = 5,
        mixtures: int = 10,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(spec, mixtures)
        check_sizes(width=width, depth=depth, dropout=dropout)
        self.width = width
        channels = spec.shape[2]
        self.above_start = DownConv2d(channels, width, (2, 3))
        self.left_start_above = DownConv2d(channels, width, (1, 3))
        self.left_start = DownRightConv2d(channels, width, (2, 1))

        def stack(kind: Any, count: int, aside: int) -> nn.ModuleList:
            return nn.ModuleList(
                GatedResidual(kind, width, aside, dropout, spec) for _ in range(count)
            )

        downs = [depth + 1, depth + 1, depth]
        self.above_up = nn.ModuleList(stack(DownConv2d, depth, 0) for _ in SCALES)
        self.left_up = nn.ModuleList(stack(DownRightConv2d, depth, width) for _ in SCALES)
        self.above_down = nn.ModuleList(stack(DownConv2d, n, width) for n in downs)
        self.left_down = nn.ModuleList(stack(DownRightConv2d, n, 2 * width) for n in downs)
        self.above_shrink = nn.ModuleList(DownConv2d(width, width, (2, 3), 2) for _ in range(2))
        self.left_shrink = nn.ModuleList(DownRightConv2d(width, width, (2, 2), 2) for _ in range(2))
        self.above_grow = nn.ModuleList(Upsample(width, 3) for _ in range(2))
        self.left_grow = nn.ModuleList(Upsample(width, 2) for _ in range(2))
        self.out = nn.Conv2d(width, self.outputs, 1)

    def features(self, image: Tensor, context: Tensor | None) -> Tensor:
        above = shift_down(self.above_start(image))
        left = shift_down(self.left_start_above(image)) + shift_right(self.left_start(image))
        skips: list[list[tuple[Tensor, Tensor]]] = []  # for each level, outputs on the way up
        for level in range(3):
            skips.append([(above, left)])
            for above_layer, left_layer in zip(
                self.above_up[level], self.left_up[level], strict=True
            ):
                above = above_layer(above, None, context)
                left = left_layer(left, above, context)
                skips[level].append((above, left))
            if level < 2:
                above, left = self.above_shrink[level](above), self.left_shrink[level](left)
        above, left = skips[2].pop()
        for level in (2, 1, 0):
            for above_layer, left_layer in zip(
                self.above_down[level], self.left_down[level], strict=True
            ):
                above_skip, left_skip = skips[level].pop()
                above = above_layer(above, above_skip, context)
                left = left_layer(left, torch.cat([above, left_skip], dim=1), context)
            if level:
                size = skips[level - 1][0][0].shape[2:]
                above = self.above_grow[level - 1](above, size)
                left = self.left_grow[level - 1](left, size)
        return self.out(F.elu(left))

    def build_program(self, program: Program) -> None:
        width = self.width
        image = program.image = program.feature_buffer(self.spec.shape[2], left=1, right=1, rows=3)
        above = AboveRow(self, program)
        first = program.feature_buffer(width)  # the left stream's first layer over the rows above
        stacks = {
            (level, direction): LeftStack(layers[level], program, SCALES[level], width)
            for level in range(3)
            for direction, layers in (("up", self.left_up), ("down", self.left_down))
        }
        # Inputs of the downsampling layers, their sums over the row above, inputs of the upsampling layers.
        fine = [program.feature_buffer(width, left=1, step=s) for s in SCALES[:2]]
        shrunk = [program.feature_buffer(width, step=s) for s in SCALES[1:]]
        coarse = [program.feature_buffer(width, step=s) for s in SCALES[1:]]
        x, skips = program.scratch(width), []
        program.linear(image.window(2, 0), self.left_start.weight[:, :, 1, 0].T, x, first.window())
        for level, scale in enumerate(SCALES):
            program.phase = (scale, 0, 0)
            if level:
                source, base = fine[level - 1].window(2), shrunk[level - 1].window()
                x = program.scratch(width)
                program.linear(source, self.left_shrink[level - 1].here(), x, base)
            skips.append([x, *stacks[level, "up"].record(x, None)])
            x = skips[level][-1]
            if level < 2:
                program.add(Opcode.COPY, x, fine[level].window())
        x = skips[2].pop()
        for level in (2, 1, 0):
            program.phase = (SCALES[level], 0, 0)
            x = stacks[level, "down"].record(x, skips[level])[-1]
            if level:
                grow, source = self.left_grow[level - 1], coarse[level - 1].window()
                program.add(Opcode.COPY, x, source)
                bias, x, half = program.bias(grow.bias), program.scratch(width), SCALES[level - 1]
                for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    program.phase = (2 * half, down * half, right * half)
                    program.linear(source, grow.weight[:, :, down, right], x, bias)
        activated = program.scratch(width)
        program.out = program.scratch(self.outputs)
        program.add(Opcode.ELU, x, activated)
        program.linear(program.up_to_group(activated), dense(self.out), program.out)

        def before_row(workspace: Tensor, row: int) -> None:
            rows = shift_rows(image, workspace)
            contributions = above.run(workspace, row, rows)
            start = self.left_start
            sums = F.conv2d(rows[:, :, 1:, :-2], start.weight[:, :, :1], start.bias)
            sums[:, :, :, 0] = 0  # as `shift_right` does
            if row:
                start_above = self.left_start_above
                sums = sums + F.conv2d(rows[:, :, 1:], start_above.weight, start_above.bias)
            write_row(first, workspace, rearrange(sums, "b f 1 w -> 1 (b w) f"))
            for level in range(2):
                if row % SCALES[level + 1] == 0:
                    windows = above_windows(fine[level], workspace, 2)
                    even = windows.unflatten(1, (len(workspace), -1))[:, :, ::2].flatten(1, 2)
                    shrink = self.left_shrink[level]
                    write_row(shrunk[level], workspace, even @ shrink.above() + shrink.bias)
            for (level, direction), stack in stacks.items():
                if row % SCALES[level] == 0:
                    stack.start_row(workspace, contributions[level, direction])

        program.before_row = before_row
