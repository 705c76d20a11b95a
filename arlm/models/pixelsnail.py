"""PixelSNAIL: causal convolutions for near pixels, causal attention for far ones.

References:
    | PixelSNAIL: An Improved Autoregressive Generative Model (Chen, Mishra, Rohaninejad, Abbeel, 2018)
    | https://arxiv.org/abs/1712.09763
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from arlm.core import Spec
from arlm.errors import require
from arlm.layers.checks import check_sizes
from arlm.layers.class_embedding import ClassEmbedding
from arlm.layers.constants import ConstantBuffers
from arlm.layers.masked_conv import MaskedConv2d
from arlm.layers.shifted_conv import DownRightConv2d
from arlm.pixels.head import dense, record_first, write_row
from arlm.pixels.mixture import MixturePixelNetwork
from arlm.programs.program import Opcode, Program


def strictly_causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over earlier positions only; zeros for the first, which has none.

    Query q[t] attends to k[: t]. Without the first query and the last key, this is the ordinary causal mask,
    and no query is fully masked.

    Shapes: (B, T, d), (B, T, d), (B, T, e) -> (B, T, e), d <= e.
    """
    scale, pad = q.shape[-1] ** -0.5, v.shape[-1] - q.shape[-1]
    # Zeros make queries as wide as values: the fused kernel takes one size only.
    q, k, v = F.pad(q[:, 1:], (0, pad)), F.pad(k[:, :-1], (0, pad)), v[:, :-1]
    y = F.scaled_dot_product_attention(
        q[:, None], k[:, None], v[:, None], is_causal=True, scale=scale
    )
    return F.pad(y[:, 0], (0, 0, 1, 0))


class GatedResidual(nn.Module):
    """x + a * sigmoid(b), [a, b] = 2x2(elu(2x2(elu(x)))) plus the label's embedding."""

    def __init__(self, width: int, dropout: float, spec: Spec) -> None:
        super().__init__()
        self.first = DownRightConv2d(width, width, (2, 2))
        self.second = DownRightConv2d(width, 2 * width, (2, 2))
        self.label = ClassEmbedding(spec, 2 * width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        y = self.drop(F.elu(self.first(F.elu(x))))
        return x + F.glu(self.second(y) + self.label(context), dim=1)


class Block(ConstantBuffers):
    """Residual layers, attention over all earlier pixels, and a layer that combines both (figure 5).

    Queries are computed from features and coordinates; keys and values also from the image at their own
    pixel, which is causal because attention excludes the current pixel.
    """

    coordinates: Tensor  # (H * W, 2)
    queries_of = keys_of = "pixels"

    def __init__(
        self,
        width: int,
        residuals: int,
        key_width: int,
        value_width: int,
        dropout: float,
        spec: Spec,
    ) -> None:
        super().__init__()
        height, columns, channels = spec.shape
        self.residuals = nn.ModuleList(
            GatedResidual(width, dropout, spec) for _ in range(residuals)
        )
        self.query = nn.Linear(width, key_width)
        self.memory = nn.Linear(width, key_width + value_width)
        self.query_coordinates = nn.Linear(2, key_width, bias=False)
        self.memory_coordinates = nn.Linear(2, key_width + value_width, bias=False)
        self.memory_image = nn.Linear(channels, key_width + value_width, bias=False)
        self.sizes = [key_width, value_width]
        self.from_residual = nn.Conv2d(width, width, 1)
        self.from_attention = nn.Conv2d(value_width, width, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.size = height, columns
        self.register_constants()

    def constants(self, dtype: torch.dtype) -> dict[str, Tensor]:
        axes = [torch.arange(size, dtype=dtype) / size - 0.5 for size in self.size]
        grid = torch.meshgrid(*axes, indexing="ij")
        return {"coordinates": torch.stack(grid, -1).flatten(0, 1)}

    def forward(self, x: Tensor, image: Tensor, context: Tensor | None) -> Tensor:
        y, query, memory = self._query_memory(x, image, context)
        read = strictly_causal_attention(query, *memory.split(self.sizes, dim=-1))
        read = rearrange(read, "b (h w) f -> b f h w", h=x.shape[2])
        near = F.elu(self.from_residual(F.elu(y)))
        far = F.elu(self.from_attention(F.elu(read)))
        return x + F.elu(self.out(F.elu(near + far)))

    def weights(self, x: Tensor, image: Tensor, context: Tensor | None) -> Tensor:
        """Attention weights (B, 1, H * W, H * W) of `forward`; zeros for the first pixel, which reads none."""
        _, query, memory = self._query_memory(x, image, context)
        scores = query @ memory[..., : self.sizes[0]].mT * self.sizes[0] ** -0.5
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu()
        weights = scores.masked_fill(hidden, -math.inf)[:, 1:].softmax(-1)
        return F.pad(weights, (0, 0, 1, 0))[:, None]

    def _query_memory(
        self, x: Tensor, image: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The residual layers' output, queries (B, H * W, key_width), and keys with values."""
        y = x
        for residual in self.residuals:
            y = residual(y, context)
        pixels, values = (rearrange(m, "b f h w -> b (h w) f") for m in (y, image))
        query = self.query(pixels) + self.query_coordinates(self.coordinates)
        memory = (
            self.memory(pixels)
            + self.memory_coordinates(self.coordinates)
            + self.memory_image(values)
        )
        return y, query, memory

    def biases(self) -> Tensor:
        """What coordinates and bias add to each pixel's query, key and value, (H * W, sum of sizes)."""
        query = self.query_coordinates(self.coordinates) + self.query.bias
        memory = self.memory_coordinates(self.coordinates) + self.memory.bias
        return torch.cat([query, memory], dim=1)


class PixelSNAIL(MixturePixelNetwork):
    """7x7 mask A, `depth` blocks, two 1x1 layers, a mixture of logistics or a softmax.

    Args:
        spec: of shape (H, W, C).
        width: features.
        depth: blocks.
        residuals: residual layers in a block.
        key_width, value_width: features of attention's keys and values, key_width <= value_width.
        mixtures: logistics in a pixel's mixture; 0 is a softmax over the levels of a single channel.
        dropout: probability of zeroing a feature in a residual layer, in [0, 1).

    Shapes: tokens (B, T), context (B, 1) or None -> logits (B, T, V), T <= H * W * C.
    """

    blocks: Any  # nn.ModuleList has no element type

    def __init__(
        self,
        spec: Spec,
        width: int = 64,
        depth: int = 8,
        residuals: int = 2,
        key_width: int = 4,
        value_width: int = 32,
        mixtures: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, mixtures)
        check_sizes(
            width=width, depth=depth, residuals=residuals, key_width=key_width, dropout=dropout
        )
        fits = key_width <= value_width
        require(fits, "model.net.key_width", key_width, f"choose at most {value_width}")
        self.width, self.depth, self.residuals = width, depth, residuals
        self.key_width, self.value_width = key_width, value_width
        self.first = MaskedConv2d("A", spec.shape[2], width, 7, 1)
        self.blocks = nn.ModuleList(
            Block(width, residuals, key_width, value_width, dropout, spec) for _ in range(depth)
        )
        self.hidden = nn.Conv2d(width, width // 2, 1)
        self.out = nn.Conv2d(width // 2, self.outputs, 1)

    def features(self, image: Tensor, context: Tensor | None) -> Tensor:
        x = self.first(image).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, image, context)
        return self.out(F.elu(self.hidden(F.elu(x))))

    def build_program(self, program: Program) -> None:
        width, depth, channels = self.width, self.depth, self.spec.shape[2]
        image = program.image = program.feature_buffer(channels, left=3, right=3, rows=4)
        first = program.feature_buffer(width)  # the first layer's sums over the rows above
        layers = [layer for block in self.blocks for layer in block.residuals]
        # Inputs of the two 2x2 layers of each residual layer, and the sums of these over the row above.
        ones = program.feature_buffer(width, left=1, count=len(layers))
        twos = program.feature_buffer(width, left=1, count=len(layers))
        before_ones = program.feature_buffer(width, count=len(layers))
        before_twos = program.feature_buffer(2 * width, count=len(layers))
        key_width, memory_width = self.key_width, self.key_width + self.value_width
        # `Block.biases` of the row's pixels: for the query, then for key and value.
        position_biases = program.feature_buffer(key_width + memory_width, count=depth)
        memories = program.history(memory_width, count=depth)
        x = program.scratch(width)
        program.linear(image.window(4, 0), self.first.here(), x, first.window())
        index = 0
        for number, block in enumerate(self.blocks):
            y, inner = x, program.scratch(width)
            for layer in block.residuals:
                one, two, gates = ones[index], twos[index], program.scratch(2 * width)
                program.add(Opcode.ELU, y, one.window())
                program.linear(
                    one.window(2), layer.first.here(), inner, before_ones[index].window()
                )
                program.add(Opcode.ELU, inner, two.window())
                program.linear(
                    two.window(2), layer.second.here(), gates, before_twos[index].window()
                )
                new = program.scratch(width)
                program.add(Opcode.GATE, gates, new, y)
                y, index = new, index + 1
            # The previous pixel has been drawn by now; its intensities complete its key and value.
            last, memory = memories[number].before, memories[number].here
            program.linear(image.window(2, 0), block.memory_image.weight.T, last, last)
            bias, query, read = (
                position_biases[number].window(),
                program.scratch(key_width),
                program.scratch(self.value_width),
            )
            program.linear(y, block.query.weight.T, query, bias.part(0, key_width))
            base = bias.part(key_width, memory_width)
            program.linear(y, block.memory.weight.T, memory, base)
            keys, values = memory.part(0, key_width), memory.part(key_width, self.value_width)
            program.add(Opcode.ATTEND, query, read, keys, c=values)
            near, far = program.scratch(width), program.scratch(width)
            for source, layer, target in (
                (y, block.from_residual, near),
                (read, block.from_attention, far),
            ):
                activated = program.scratch(source.size)
                program.add(Opcode.ELU, source, activated)
                program.linear(program.up_to_group(activated), dense(layer), target)
                program.add(Opcode.ELU, target, target)
            program.add(Opcode.ADD, near, far, far)
            program.add(Opcode.ELU, far, far)
            program.linear(program.up_to_group(far), dense(block.out), inner)
            program.add(Opcode.ELU, inner, inner)
            new = program.scratch(width)
            program.add(Opcode.ADD, x, new, inner)
            x = new
        activated, hidden = program.scratch(width), program.scratch(width // 2)
        program.out = program.scratch(self.outputs)
        program.add(Opcode.ELU, x, activated)
        program.linear(program.up_to_group(activated), dense(self.hidden), hidden)
        program.add(Opcode.ELU, hidden, hidden)
        program.linear(program.up_to_group(hidden), dense(self.out), program.out)

        program.row_stage()
        record_first(program, self.first, first.window(), program.bias(self.first.bias))
        for index, layer in enumerate(layers):
            sums, bias = before_ones[index].window(), program.bias(layer.first.bias)
            program.linear(ones[index].span(1, 0), layer.first.above(), sums, bias)
            sums = before_twos[index].window()
            bias = program.bias(layer.second.bias, layer.label.vector)
            program.linear(twos[index].span(1, 0), layer.second.above(), sums, bias)
        position_table = torch.stack(
            [block.biases() for block in self.blocks]
        )  # (depth, H * W, sizes)
        columns = program.width

        def before_row(workspace: Tensor, row: int) -> None:
            if row:  # complete key and value of the last pixel of the row above
                pixel = image.view(workspace)[:, 0, -1, 2 + columns]
                for memory, block in zip(memories, self.blocks, strict=True):
                    newest = memory.before.at(workspace, row)
                    newest += block.memory_image(pixel)
            rows = position_table[:, row * columns : (row + 1) * columns]
            write_row(position_biases, workspace, rows.repeat(1, len(workspace), 1))

        program.before_row = before_row
