"""The last two layers of a pixel network, and parts of programs that several networks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from arlm.core import Spec
from arlm.layers.masked_conv import MaskedConv2d
from arlm.programs.program import FeatureBuffer, Opcode, Program, Slice


class Head(nn.Module):
    """Two 1x1 layers of mask B, each after a ReLU: features -> V logits for each channel.

    Shapes: (B, features, H, W) -> (B, C * V, H, W).
    """

    def __init__(self, features: int, width: int, spec: Spec) -> None:
        super().__init__()
        channels = spec.shape[2]
        self.hidden = MaskedConv2d("B", features, width, 1, channels)
        self.out = MaskedConv2d("B", width, channels * spec.vocab_size, 1, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.hidden(F.relu(x))))

    def at_pixels(self, x: Tensor) -> Tensor:
        """`forward` for features in the last axis, (..., features) -> (..., C * V)."""
        return self.out.at_pixels(F.relu(self.hidden.at_pixels(F.relu(x))))

    def build_program(self, program: Program) -> Callable[[Slice], None]:
        """Allocate the head's slices. Returns a function that records it for the current channel group."""
        width, features = self.hidden.weight.shape[:2]
        rectified, hidden = program.scratch(features), program.scratch(width)
        program.out = program.scratch(len(self.out.bias) // program.groups)

        def record(x: Slice) -> None:
            current, upto = program.current_group, program.up_to_group
            program.add(Opcode.RELU, current(x), current(rectified))
            program.linear(upto(rectified), current(dense(self.hidden)), current(hidden))
            program.add(Opcode.RELU, current(hidden), current(hidden))
            program.linear(upto(hidden), current(dense(self.out)), program.out)

        return record


def record_first(program: Program, layer: MaskedConv2d, out: Slice, bias: Slice) -> None:
    """In a row stage, shift the image up by one row, and apply the first layer's taps in the rows above."""
    image, kernels = program.image, layer.above()
    program.shift_up(image)
    for row in range(image.rows - 1):
        window = image.span(layer.pads[0], layer.pads[1], row)
        weight = rearrange(kernels[:, :, row], "o i k -> (k i) o")
        program.linear(window, weight, out, out if row else bias)


def write_row(buffer: FeatureBuffer, workspace: Tensor, features: Tensor) -> None:
    """Write features (count, B * W, f) as the newest row of a feature buffer without padding."""
    newest = buffer.view(workspace)[:, :, -1]
    newest.copy_(rearrange(features, "l (b w) f -> b l w f", b=len(workspace)))


def dense(layer: MaskedConv2d | nn.Conv2d) -> Tensor:
    """Bias and weight of a 1x1 layer as one matrix, (1 + in, out), bias first."""
    weight = layer.here() if isinstance(layer, MaskedConv2d) else layer.weight.flatten(1).T
    return torch.cat([layer.bias[None], weight])  # type: ignore[index]
