"""PixelCNN: an image as a sequence of pixels, scored by masked convolutions.

References:
    | Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016), sections 3.3-3.4
    | https://arxiv.org/abs/1601.06759
    | Fast Generation for Convolutional Autoregressive Models (Ramachandran et al., 2017): the caches
    | https://arxiv.org/abs/1704.06001
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from arlm.core import Autoregressor, Spec, State, check_sizes, device_of
from arlm.errors import UserError
from arlm.layers.masked_conv import MaskedConv2d

RASTER = "b (h w c) -> b c h w"


class Intensity(nn.Module):
    """Level v of V -> a number in [-1, 1]; zero padding around the image is then mid-grey. (...) -> (...)."""

    values: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.register_buffer("values", torch.linspace(-1, 1, levels), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.values[tokens]


class ResidualBlock(nn.Module):
    """x + 1x1(relu(3x3(relu(1x1(relu(x)))))): 2h -> h -> h -> 2h features, all mask B (figure 5)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.down = MaskedConv2d("B", 2 * width, width, 1, channels)
        self.conv = MaskedConv2d("B", width, width, 3, channels)
        self.up = MaskedConv2d("B", width, 2 * width, 1, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.relu(self.conv(F.relu(self.down(F.relu(x))))))


class Dense(NamedTuple):
    """A layer at one pixel: `addmm(bias, x, weight)`."""

    weight: Tensor  # (in, out)
    bias: Tensor  # (out,)


class Folded(NamedTuple):
    """Masked weights as matrices over the unmasked taps, and where things lie in flattened maps.

    Inside a block, one more feature is 1 throughout: it carries the bias of the layer after it.
    """

    first: Dense
    first_offsets: Tensor  # (taps,)
    past: Dense  # 3x3 taps before the pixel: (depth, taps * h, h + 1), (depth, 1, h + 1)
    past_offsets: Tensor  # (taps,)
    blocks: tuple[tuple[Dense, Tensor, Tensor], ...]  # 1x1 down, centre of the 3x3, 1x1 up
    head: tuple[Dense, Dense]
    places: Tensor  # (T, 3): pixel in the padded image, pixel in the padded map, channel
    planes: Tensor  # (depth, 1): where each block's map begins


@dataclass(frozen=True)
class PixelCNNState(State):
    """What is known of each layer's input, with the zero padding that its convolution sees."""

    shared = frozenset({"folded"})

    image: Tensor  # (B, (H + 3) * (W + 6), C) intensities
    maps: Tensor  # (B, depth, (H + 1) * (W + 2), h) inputs of the 3x3 convolutions
    position: Tensor  # (B,) int64, tokens taken in
    folded: Folded


class PixelCNN(Autoregressor):
    """The paper's PixelCNN: 7x7 mask A, `depth` residual blocks, two 1x1 layers, softmax over V levels.

    What a pixel @ sees through a 3x3 (mask B keeps the centre #, mask A does not):

        . . . . .        The stack sees a triangle that widens upwards: pixels to the right of its
        . 1 1 1 .        edge, though earlier in the order, lie in the blind spot.
        . 1 # . .

    With C > 1 channels, features are split into C groups (R, G, B) and the centre tap lets a group see
    itself and those before it, so a channel is conditioned on the earlier channels of its own pixel.

    Args:
        spec: of shape (H, W, C).
        width: h, features inside a block; 2h between blocks.
        depth: residual blocks.
        head_width: features of the layer before the softmax.

    Shapes: tokens (B, T) -> logits (B, T, V), T <= H * W * C.
    """

    blocks: Any  # nn.ModuleList does not tell what it holds
    head: Any

    def __init__(self, spec: Spec, width: int = 16, depth: int = 15, head_width: int = 32) -> None:
        super().__init__(spec)
        check_sizes(width=width, depth=depth, head_width=head_width)
        if len(spec.shape) != 3:
            raise UserError(
                f"model.net: PixelCNN needs an image of shape (H, W, C), not {spec.shape}; "
                "choose an image data set, or a network for sequences"
            )
        channels = spec.shape[2]
        if min(width, head_width) < channels:
            raise UserError(
                f"model.net.width: {min(width, head_width)} features cannot be split into "
                f"{channels} channel groups; choose at least {channels}"
            )
        self.width, self.depth, self.head_width = width, depth, head_width
        self.embed = Intensity(spec.vocab_size)
        self.first = MaskedConv2d("A", channels, 2 * width, 7, channels)
        self.blocks = nn.ModuleList(ResidualBlock(width, channels) for _ in range(depth))
        self.head = nn.ModuleList(
            [
                MaskedConv2d("B", 2 * width, head_width, 1, channels),
                MaskedConv2d("B", head_width, channels * spec.vocab_size, 1, channels),
            ]
        )

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        height, width, channels = self.spec.shape
        length = tokens.shape[1]
        values = F.pad(self.embed(tokens), (0, self.spec.length - length))
        x = self.first(rearrange(values, RASTER, h=height, w=width, c=channels))
        for block in self.blocks:
            x = block(x)
        for layer in self.head:
            x = layer(F.relu(x))
        return rearrange(x, "b (c v) h w -> b (h w c) v", c=channels)[:, :length]

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, PixelCNNState]:
        height, width, channels = self.spec.shape
        zeros = self.first.weight.new_zeros
        state = PixelCNNState(
            image=zeros(batch, (height + 3) * (width + 6), channels),
            maps=zeros(batch, self.depth, (height + 1) * (width + 2), self.width),
            position=torch.zeros(batch, dtype=torch.long, device=device_of(self)),
            folded=self._fold(),
        )
        return self._score(state), state

    def advance(self, tokens: Tensor, state: PixelCNNState) -> tuple[Tensor, PixelCNNState]:
        logits = []
        for token in tokens.unbind(1):
            state = self._write(token, state)
            logits.append(self._score(state))
        return torch.stack(logits, dim=1), state

    def _fold(self) -> Folded:
        height, width, channels = self.spec.shape
        blocks = self.blocks

        def dense(layer: Any) -> Dense:
            return Dense(layer.tap_weights().flatten(0, 1).contiguous(), layer.bias)

        def offsets(taps: Tensor, row_length: int) -> Tensor:
            return taps[:, 0] * row_length + taps[:, 1]

        taps = torch.stack([block.conv.tap_weights() for block in blocks])  # (depth, taps, h, h)
        taps = F.pad(taps, (0, 1))  # the feature that is 1: no weight, bias 1
        bias = torch.stack([block.conv.bias for block in blocks])[:, None]
        ups = [torch.cat([dense(b.up).weight, b.up.bias[None]]) for b in blocks]
        token = torch.arange(height * width * channels, device=bias.device)
        row, column, channel = (
            token // channels // width,
            token // channels % width,
            token % channels,
        )
        image, pixel = (row + 3) * (width + 6) + column + 3, (row + 1) * (width + 2) + column + 1
        return Folded(
            first=dense(self.first),
            first_offsets=offsets(self.first.taps(), width + 6),
            past=Dense(taps[:, :-1].flatten(1, 2), F.pad(bias, (0, 1), value=1.0)),
            past_offsets=offsets(blocks[0].conv.taps()[:-1], width + 2),
            blocks=tuple(
                (dense(block.down), here.contiguous(), up)
                for block, here, up in zip(blocks, taps[:, -1], ups, strict=True)
            ),
            head=(dense(self.head[0]), dense(self.head[1])),
            places=torch.stack([image, pixel, channel], dim=1),
            planes=torch.arange(self.depth, device=bias.device)[:, None]
            * (height + 1)
            * (width + 2),
        )

    def _write(self, token: Tensor, state: PixelCNNState) -> PixelCNNState:
        """Put the next token (B,) into the image."""
        batch, size, channels = state.image.shape
        image, _, channel = state.folded.places.index_select(0, state.position).unbind(1)
        rows = torch.arange(0, batch * size, size, device=token.device)
        place = (rows + image) * channels + channel
        state.image.view(-1).index_copy_(0, place, self.embed(token))
        return PixelCNNState(state.image, state.maps, state.position + 1, state.folded)

    def _score(self, state: PixelCNNState) -> Tensor:
        """Logits (B, V) of the next token: the new column of every layer, nothing else.

        All that a 3x3 sees of finished pixels is ready in every block, so one batched product serves
        all blocks; what is left between blocks are products at the pixel itself. With C > 1 the column
        is computed for each channel of the pixel, and what later channels change is written again.
        """
        folded, (batch, size, channels) = state.folded, state.image.shape
        image, pixel, channel = folded.places.index_select(0, state.position).unbind(1)
        rows = torch.arange(batch, device=image.device)

        where = ((rows * size + image)[:, None] + folded.first_offsets).view(-1)
        window = state.image.view(-1, channels).index_select(0, where)
        x = torch.addmm(folded.first.bias, window.view(batch, -1), folded.first.weight)

        maps = state.maps.view(-1, self.width)
        spots = rows * (self.depth * state.maps.shape[2]) + pixel + folded.planes  # (depth, B)
        seen = maps.index_select(0, (spots[:, :, None] + folded.past_offsets).view(-1))
        windows = seen.view(self.depth, batch, -1)
        past = torch.baddbmm(folded.past.bias, windows, folded.past.weight)

        inputs = []
        for (down, here, up), before in zip(folded.blocks, past.unbind(), strict=True):
            y = torch.addmm(down.bias, x.relu(), down.weight).relu_()
            inputs.append(y)
            x = torch.addmm(x, torch.addmm(before, y, here).relu_(), up)
        maps.index_copy_(0, spots.view(-1), torch.cat(inputs))

        for layer in folded.head:
            x = torch.addmm(layer.bias, x.relu(), layer.weight)
        return x if channels == 1 else x.view(batch, channels, -1)[rows, channel]
