"""The two streams of PixelCNN++, over maps and one row or pixel at a time.

References:
    | PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
    | Modifications (Salimans, Karpathy, Chen, Kingma, 2017), section 2.2 and its code
    | https://arxiv.org/abs/1701.05517
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from arlm.core import Spec
from arlm.layers.class_embedding import ClassEmbedding
from arlm.layers.shifted_conv import DownConv2d, concat_elu
from arlm.pixels.head import write_row
from arlm.programs.program import FeatureBuffer, Opcode, Program, Slice

SCALES = (1, 2, 4)


class GatedResidual(nn.Module):
    """x + a * sigmoid(b), [a, b] = conv(concat_elu(conv(concat_elu(x)) + 1x1(concat_elu(aside)))).

    Args:
        kind: of the convolutions, `DownConv2d` or `DownRightConv2d`.
        aside: features of another stream or a short cut, 0 for none.
    """

    def __init__(self, kind: Any, width: int, aside: int, dropout: float, spec: Spec) -> None:
        super().__init__()
        kernel = (2, 3) if kind is DownConv2d else (2, 2)
        self.first = kind(2 * width, width, kernel)
        self.aside = nn.Conv2d(2 * aside, width, 1, bias=False) if aside else None
        self.drop = nn.Dropout(dropout)
        self.second = kind(2 * width, 2 * width, kernel)
        self.label = ClassEmbedding(spec, 2 * width)

    def forward(self, x: Tensor, aside: Tensor | None, context: Tensor | None) -> Tensor:
        y = self.first(concat_elu(x))
        if self.aside is not None and aside is not None:
            y = y + self.aside(concat_elu(aside))
        y = self.second(self.drop(concat_elu(y))) + self.label(context)
        return x + F.glu(y, dim=1)


class Upsample(nn.ConvTranspose2d):
    """Doubles height and width: a pixel of the coarse map gives two rows and two columns, or parts of three."""

    def __init__(self, width: int, columns: int) -> None:
        super().__init__(width, width, (2, columns), stride=2)
        self.cut = columns // 2 if columns == 3 else 0

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        y = super().forward(x)
        return y[:, :, : size[0], self.cut : self.cut + size[1]]


class LeftStack:
    """The gated layers of the left stream on one way through one resolution, at one pixel."""

    def __init__(self, layers: Any, program: Program, scale: int, width: int) -> None:
        self.layers, self.program, self.width = list(layers), program, width
        count = len(self.layers)
        self.inputs = [
            program.feature_buffer(2 * width, left=1, count=count, step=scale) for _ in range(2)
        ]
        self.before = [program.feature_buffer(n * width, count=count, step=scale) for n in (1, 2)]
        self.labels = [program.constant(layer.label.vector, 2 * width) for layer in self.layers]
        convolutions = [[layer.first for layer in layers], [layer.second for layer in layers]]
        self.above = [torch.stack([c.above() for c in stage]) for stage in convolutions]
        self.biases = [torch.stack([c.bias for c in stage]) for stage in convolutions]

    def record(self, x: Slice, short_cuts: list[Slice] | None) -> list[Slice]:
        """Record all layers after one another; takes the short cuts from the end. Outputs of each."""
        program, width, outputs = self.program, self.width, []
        for index, layer in enumerate(self.layers):
            one, two = (maps[index] for maps in self.inputs)
            inner, gates, new = (
                program.scratch(width),
                program.scratch(2 * width),
                program.scratch(width),
            )
            program.add(Opcode.CONCAT_ELU, x, one.window())
            program.linear(one.window(2), layer.first.here(), inner, self.before[0][index].window())
            if short_cuts is not None:
                activated = program.scratch(2 * width)
                program.add(Opcode.CONCAT_ELU, short_cuts.pop(), activated)
                program.linear(activated, aside_of(layer, width, second=True), inner, inner)
            program.add(Opcode.CONCAT_ELU, inner, two.window())
            program.linear(
                two.window(2), layer.second.here(), gates, self.before[1][index].window()
            )
            program.add(Opcode.GATE, gates, new, x)
            outputs.append(new)
            x = new
        return outputs

    def start_row(self, workspace: Tensor, asides: list[Tensor]) -> None:
        """What the row above and the other stream (B, width, 1, W) say to each layer."""
        row_bias = torch.stack([rearrange(aside, "b f 1 w -> (b w) f") for aside in asides])
        row_bias = row_bias + self.biases[0][:, None]
        windows = above_windows(self.inputs[0], workspace, 2)
        write_row(self.before[0], workspace, torch.baddbmm(row_bias, windows, self.above[0]))
        label = torch.stack([part.at(workspace) for part in self.labels]) + self.biases[1][:, None]
        windows = above_windows(self.inputs[1], workspace, 2)
        label = label.repeat_interleave(windows.shape[1] // len(workspace), 1)
        write_row(self.before[1], workspace, torch.baddbmm(label, windows, self.above[1]))


class AboveRow:
    """The stream above, for one row at all resolutions; keeps the last row of what each layer read."""

    def __init__(self, net: Any, program: Program) -> None:
        self.net, self.width = net, net.width
        self.memories: dict[nn.Module, FeatureBuffer] = {}
        self.labels: dict[nn.Module, Slice] = {}
        for level, scale in enumerate(SCALES):
            layers = [*net.above_up[level], *net.above_down[level]]
            for layer in layers:
                self.labels[layer] = program.constant(layer.label.vector, 2 * net.width)
                for convolution in (layer.first, layer.second):
                    self.memories[convolution] = program.feature_buffer(
                        2 * net.width, 1, 1, step=scale
                    )
            if level < 2:
                self.memories[net.above_shrink[level]] = program.feature_buffer(
                    net.width, 1, 1, step=scale
                )
        self.coarse = [program.feature_buffer(net.width, step=s) for s in SCALES[1:]]

    def run(self, workspace: Tensor, row: int, rows: Tensor) -> dict[tuple[int, str], list[Tensor]]:
        """From the image's rows above (B, C, 2, W + 2) to what the left stream's layers read, 1x1 applied."""
        net = self.net
        x = F.conv2d(rows, net.above_start.weight, net.above_start.bias)
        x = x if row else torch.zeros_like(x)
        kept: list[list[Tensor]] = []
        asides: dict[tuple[int, str], list[Tensor]] = {}
        for level, scale in enumerate(SCALES):
            kept.append([x])
            asides[level, "up"] = []
            for layer, side in zip(net.above_up[level], net.left_up[level], strict=True):
                x = self._gated(layer, x, None, workspace)
                kept[level].append(x)
                asides[level, "up"].append(side.aside(concat_elu(x)))
            if level == 2:
                break
            both = self._remember(net.above_shrink[level], x, workspace)
            if row % (2 * scale):
                break
            shrink = net.above_shrink[level]
            x = F.conv2d(both, shrink.weight, shrink.bias, stride=2)
        level = len(kept) - 1
        x = kept[2].pop() if level == 2 else self._grown(level, row, workspace)
        while True:
            asides[level, "down"] = []
            for layer, side in zip(net.above_down[level], net.left_down[level], strict=True):
                x = self._gated(layer, x, kept[level].pop(), workspace)
                weight = aside_of(side, self.width, second=False)
                row_bias = rearrange(concat_elu(x), "b f 1 w -> b 1 w f") @ weight
                asides[level, "down"].append(rearrange(row_bias, "b 1 w f -> b f 1 w"))
            if not level:
                return asides
            write_row(self.coarse[level - 1], workspace, rearrange(x, "b f 1 w -> 1 (b w) f"))
            level -= 1
            x = self._grown(level, row, workspace)

    def _remember(self, convolution: nn.Module, x: Tensor, workspace: Tensor) -> Tensor:
        """The row before and this one, zeros on both sides, (B, f, 2, W + 2); this one is kept."""
        memory = self.memories[convolution].view(workspace)[:, 0]
        newest = F.pad(x, (1, 1))
        both = torch.cat([rearrange(memory, "b 1 w f -> b f 1 w"), newest], dim=2)
        memory.copy_(rearrange(newest, "b f 1 w -> b 1 w f"))
        return both

    def _gated(self, layer: Any, x: Tensor, short_cut: Tensor | None, workspace: Tensor) -> Tensor:
        """One row of `GatedResidual`."""
        first, second = layer.first, layer.second
        y = F.conv2d(self._remember(first, concat_elu(x), workspace), first.weight, first.bias)
        if short_cut is not None:
            y = y + layer.aside(concat_elu(short_cut))
        y = F.conv2d(self._remember(second, concat_elu(y), workspace), second.weight, second.bias)
        return x + F.glu(y + self.labels[layer].at(workspace)[:, :, None, None], dim=1)

    def _grown(self, level: int, row: int, workspace: Tensor) -> Tensor:
        """One row of `Upsample` from the coarser level's newest."""
        grow = self.net.above_grow[level]
        x = rearrange(self.coarse[level].view(workspace)[:, 0], "b 1 w f -> b f w")
        half = row // SCALES[level] % 2
        y = F.conv_transpose1d(x, grow.weight[:, :, half], grow.bias, stride=2)
        columns = -(-self.net.spec.shape[1] // SCALES[level])
        return y[:, :, None, grow.cut : grow.cut + columns]


def aside_of(layer: Any, width: int, second: bool) -> Tensor:
    """Weights (2 * width, width) of one half of [above, short cut], which concat_elu doubles."""
    half = layer.aside.weight[:, :, 0, 0].unflatten(1, (2, 2, width))[:, :, int(second)]
    return half.flatten(1).T


def shift_rows(image: FeatureBuffer, workspace: Tensor) -> Tensor:
    """Move the rows of a map up by one, and give those above the new row, (B, features, rows - 1, columns)."""
    rows = image.view(workspace)[:, 0]
    above = rows[:, 1:].clone()
    rows[:, :-1] = above
    return above.permute(0, 3, 1, 2)


def above_windows(maps: FeatureBuffer, workspace: Tensor, taps: int) -> Tensor:
    """Windows of the newest row, which is about to be the row above: (count, B * W, taps * features)."""
    rows = maps.view(workspace)[:, :, -1].unfold(2, taps, 1)  # (B, count, W, features, taps)
    return rearrange(rows, "b l w f k -> l (b w) (k f)")
