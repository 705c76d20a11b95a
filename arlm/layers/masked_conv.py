"""Masked convolutions: a pixel sees only what comes before it in raster order.

References:
    | Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016), section 3.4
    | https://arxiv.org/abs/1601.06759
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def channel_groups(features: int, channels: int) -> Tensor:
    """The image channel that each feature belongs to, (features,): R first, then G, then B."""
    return torch.arange(features) * channels // features


def raster_mask(
    kind: Literal["A", "B"], out_features: int, in_features: int, kernel: int, channels: int
) -> Tensor:
    """Mask of a convolution, (out, in, kernel, kernel) of 0 and 1.

    A 3x3 kernel sees, with # for the centre:

        1 1 1
        1 # 0      # is 0 in mask A and 1 in mask B
        0 0 0

    At the centre of an image with several channels, a feature of channel c sees features of channels
    before c (mask A), and of c too (mask B).
    """
    middle = kernel // 2
    mask = torch.zeros(out_features, in_features, kernel, kernel)
    mask[:, :, :middle] = 1
    mask[:, :, middle, :middle] = 1
    target = channel_groups(out_features, channels)[:, None]
    source = channel_groups(in_features, channels)[None, :]
    mask[:, :, middle, middle] = (source < target if kind == "A" else source <= target).float()
    return mask


class MaskedConv2d(nn.Conv2d):
    """Size-preserving convolution whose weight is multiplied by a raster mask, A or B.

    Args:
        kind: "A" for the first layer, which must not see the pixel itself; "B" for all others.
        in_features, out_features: feature maps; at least `channels` of each.
        kernel: odd width of the square kernel.
        channels: channels of the image, in the order in which they are modelled.

    Shapes: (B, in_features, H, W) -> (B, out_features, H, W).
    """

    mask: Tensor

    def __init__(
        self,
        kind: Literal["A", "B"],
        in_features: int,
        out_features: int,
        kernel: int,
        channels: int,
    ) -> None:
        super().__init__(in_features, out_features, kernel, padding=kernel // 2)
        mask = raster_mask(kind, out_features, in_features, kernel, channels)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)

    def taps(self) -> Tensor:
        """Offsets (dy, dx) of the kernel positions that see anything, (taps, 2), in raster order."""
        return self.mask.amax((0, 1)).nonzero() - self.kernel_size[0] // 2

    def tap_weights(self) -> Tensor:
        """Masked weights of `taps()`, (taps, in_features, out_features): `window @ weights`."""
        dy, dx = (self.taps() + self.kernel_size[0] // 2).unbind(1)
        return (self.weight * self.mask)[:, :, dy, dx].permute(2, 1, 0)
