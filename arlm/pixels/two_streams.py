"""The two streams of PixelCNN++: layers over whole feature maps, and their incremental form for sampling.

    a a a a a      stream `above` summarises the complete rows (a): `AboveRow` computes it once an image row
    a a a a a
    l l @ . .      stream `left` adds the pixels (l) of the row of @ itself, and reads `above` as auxiliary
    . . . . .      input: `LeftStack` records it in the program, which computes it at every pixel

Both streams go up through the resolutions 1, 1/2, 1/4 and down again. At resolution 1/s, sampling computes
only every s-th row and column of pixels.

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

SCALES = (1, 2, 4)  # s of the three resolutions 1/s, also called levels 0, 1, 2


class GatedResidual(nn.Module):
    """x + a * sigmoid(b), [a, b] = conv(concat_elu(conv(concat_elu(x)) + 1x1(concat_elu(aside)))).

    Args:
        kind: of the convolutions, `DownConv2d` or `DownRightConv2d`.
        aside: features of the auxiliary input (the other stream, or a skip connection); 0 for none.
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
    """Doubles height and width by a transposed convolution of kernel (2, `columns`), cropped to `size`."""

    def __init__(self, width: int, columns: int) -> None:
        super().__init__(width, width, (2, columns), stride=2)
        self.cut = columns // 2 if columns == 3 else 0

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        y = super().forward(x)
        return y[:, :, : size[0], self.cut : self.cut + size[1]]


class LeftStack:
    """The layers of the left stream at one resolution, in one direction (up or down), pixel by pixel."""

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

    def record(self, x: Slice, skips: list[Slice] | None) -> list[Slice]:
        """Record all layers in order; each pops a skip connection from `skips`. Returns their outputs."""
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
            if skips is not None:
                activated = program.scratch(2 * width)
                program.add(Opcode.CONCAT_ELU, skips.pop(), activated)
                program.linear(activated, auxiliary_weight(layer, width, skip=True), inner, inner)
            program.add(Opcode.CONCAT_ELU, inner, two.window())
            program.linear(
                two.window(2), layer.second.here(), gates, self.before[1][index].window()
            )
            program.add(Opcode.GATE, gates, new, x)
            outputs.append(new)
            x = new
        return outputs

    def start_row(self, workspace: Tensor, auxiliary: list[Tensor]) -> None:
        """Compute what both convolutions of each layer add to a new row, except the row's own pixels.

        Args:
            auxiliary: contribution of stream `above` to each layer, (B, width, 1, W).
        """
        first = torch.stack([rearrange(part, "b f 1 w -> (b w) f") for part in auxiliary])
        first = first + self.biases[0][:, None]
        windows = above_windows(self.inputs[0], workspace, 2)
        write_row(self.before[0], workspace, torch.baddbmm(first, windows, self.above[0]))
        labels = torch.stack([part.at(workspace) for part in self.labels])
        second = labels + self.biases[1][:, None]
        windows = above_windows(self.inputs[1], workspace, 2)
        second = second.repeat_interleave(windows.shape[1] // len(workspace), 1)
        write_row(self.before[1], workspace, torch.baddbmm(second, windows, self.above[1]))


class AboveRow:
    """Stream `above` at all resolutions, one image row at a time.

    Its kernels are two rows high, so the workspace keeps the previous input row of every convolution.
    """

    def __init__(self, net: Any, program: Program) -> None:
        self.net, self.width = net, net.width
        self.previous: dict[nn.Module, FeatureBuffer] = {}
        self.labels: dict[nn.Module, Slice] = {}
        for level, scale in enumerate(SCALES):
            layers = [*net.above_up[level], *net.above_down[level]]
            for layer in layers:
                self.labels[layer] = program.constant(layer.label.vector, 2 * net.width)
                for convolution in (layer.first, layer.second):
                    self.previous[convolution] = program.feature_buffer(
                        2 * net.width, 1, 1, step=scale
                    )
            if level < 2:
                self.previous[net.above_shrink[level]] = program.feature_buffer(
                    net.width, 1, 1, step=scale
                )
        self.coarse = [program.feature_buffer(net.width, step=s) for s in SCALES[1:]]

    def run(self, workspace: Tensor, row: int, rows: Tensor) -> dict[tuple[int, str], list[Tensor]]:
        """Compute one row of the stream.

        Args:
            rows: the two image rows above, padded, (B, C, 2, W + 2).

        Returns: for each level and direction ("up", "down"), the contribution (B, width, 1, W / s) to each
        layer of the left stream.
        """
        net = self.net
        x = F.conv2d(rows, net.above_start.weight, net.above_start.bias)
        x = x if row else torch.zeros_like(x)  # as `shift_down` does
        skips: list[list[Tensor]] = []  # for each level, the outputs on the way up
        contributions: dict[tuple[int, str], list[Tensor]] = {}
        for level, scale in enumerate(SCALES):
            skips.append([x])
            contributions[level, "up"] = []
            for layer, left in zip(net.above_up[level], net.left_up[level], strict=True):
                x = self._gated(layer, x, None, workspace)
                skips[level].append(x)
                contributions[level, "up"].append(left.aside(concat_elu(x)))
            if level == 2:
                break
            two_rows = self._with_previous(net.above_shrink[level], x, workspace)
            if row % (2 * scale):  # the coarser level has no new row
                break
            shrink = net.above_shrink[level]
            x = F.conv2d(two_rows, shrink.weight, shrink.bias, stride=2)
        level = len(skips) - 1
        x = skips[2].pop() if level == 2 else self._upsample(level, row, workspace)
        while True:
            contributions[level, "down"] = []
            for layer, left in zip(net.above_down[level], net.left_down[level], strict=True):
                x = self._gated(layer, x, skips[level].pop(), workspace)
                weight = auxiliary_weight(left, self.width, skip=False)
                contribution = rearrange(concat_elu(x), "b f 1 w -> b 1 w f") @ weight
                contributions[level, "down"].append(rearrange(contribution, "b 1 w f -> b f 1 w"))
            if not level:
                return contributions
            write_row(self.coarse[level - 1], workspace, rearrange(x, "b f 1 w -> 1 (b w) f"))
            level -= 1
            x = self._upsample(level, row, workspace)

    def _with_previous(self, convolution: nn.Module, x: Tensor, workspace: Tensor) -> Tensor:
        """Previous and new input row of a convolution, padded, (B, f, 2, W + 2); stores the new one."""
        previous = self.previous[convolution].view(workspace)[:, 0]
        newest = F.pad(x, (1, 1))
        two_rows = torch.cat([rearrange(previous, "b 1 w f -> b f 1 w"), newest], dim=2)
        previous.copy_(rearrange(newest, "b f 1 w -> b 1 w f"))
        return two_rows

    def _gated(self, layer: Any, x: Tensor, skip: Tensor | None, workspace: Tensor) -> Tensor:
        """One row of `GatedResidual`."""
        first, second = layer.first, layer.second
        y = F.conv2d(self._with_previous(first, concat_elu(x), workspace), first.weight, first.bias)
        if skip is not None:
            y = y + layer.aside(concat_elu(skip))
        y = F.conv2d(
            self._with_previous(second, concat_elu(y), workspace), second.weight, second.bias
        )
        return x + F.glu(y + self.labels[layer].at(workspace)[:, :, None, None], dim=1)

    def _upsample(self, level: int, row: int, workspace: Tensor) -> Tensor:
        """One row of `Upsample`, from the newest row of the next coarser level."""
        grow = self.net.above_grow[level]
        x = rearrange(self.coarse[level].view(workspace)[:, 0], "b 1 w f -> b f w")
        half = row // SCALES[level] % 2
        y = F.conv_transpose1d(x, grow.weight[:, :, half], grow.bias, stride=2)
        columns = -(-self.net.spec.shape[1] // SCALES[level])
        return y[:, :, None, grow.cut : grow.cut + columns]


def auxiliary_weight(layer: Any, width: int, skip: bool) -> Tensor:
    """A left layer's weight (2 * width, width) for its skip connection, or else for stream `above`.

    Its auxiliary input is concat_elu([above, skip connection]).
    """
    half = layer.aside.weight[:, :, 0, 0].unflatten(1, (2, 2, width))[:, :, int(skip)]
    return half.flatten(1).T


def shift_rows(image: FeatureBuffer, workspace: Tensor) -> Tensor:
    """Move all rows up by one; returns the rows above the new one, (B, features, rows - 1, columns)."""
    rows = image.view(workspace)[:, 0]
    above = rows[:, 1:].clone()
    rows[:, :-1] = above
    return above.permute(0, 3, 1, 2)


def above_windows(maps: FeatureBuffer, workspace: Tensor, taps: int) -> Tensor:
    """Windows of the last complete row, the row above the new one: (count, B * W, taps * features)."""
    rows = maps.view(workspace)[:, :, -1].unfold(2, taps, 1)  # (B, count, W, features, taps)
    return rearrange(rows, "b l w f k -> l (b w) (k f)")
