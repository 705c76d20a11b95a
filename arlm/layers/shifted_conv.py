"""Convolutions whose receptive field excludes the rows below, or also the columns to the right.

References:
    | PixelCNN++ (Salimans, Karpathy, Chen, Kingma, 2017), section 2.2 and its code
    | https://arxiv.org/abs/1701.05517
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class DownConv2d(nn.Conv2d):
    """Sees the pixel's own row and the rows above it; padded at the top and on both sides.

        1 1 1
        1 # 1

    Shapes: (B, in, H, W) -> (B, out, H / stride, W / stride), sizes rounded up.
    """

    def __init__(self, features: int, out: int, kernel: tuple[int, int], stride: int = 1) -> None:
        super().__init__(features, out, kernel, stride=stride)
        self.pads = (kernel[1] // 2, kernel[1] // 2, kernel[0] - 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.pads))


class DownRightConv2d(nn.Conv2d):
    """Sees the pixel itself and the pixels above and to the left; padded at the top and on the left.

        1 1
        1 #

    Shapes: as `DownConv2d`.
    """

    def __init__(self, features: int, out: int, kernel: tuple[int, int], stride: int = 1) -> None:
        super().__init__(features, out, kernel, stride=stride)
        self.pads = (kernel[1] - 1, 0, kernel[0] - 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.pads))

    def above(self) -> Tensor:
        """Weights of the taps in the row above, (taps * in, out), for `window @ weights`."""
        return rearrange(self.weight[:, :, 0], "o i k -> (k i) o")

    def here(self) -> Tensor:
        """Weights of the taps in the pixel's own row, (taps * in, out)."""
        return rearrange(self.weight[:, :, -1], "o i k -> (k i) o")


def shift_down(x: Tensor) -> Tensor:
    """Move every row down by one; the first becomes zero."""
    return F.pad(x[:, :, :-1], (0, 0, 1, 0))


def shift_right(x: Tensor) -> Tensor:
    """Move every column to the right by one; the first becomes zero."""
    return F.pad(x[:, :, :, :-1], (1, 0))


def concat_elu(x: Tensor) -> Tensor:
    """elu([x, -x]), features doubled."""
    return F.elu(torch.cat([x, -x], dim=1))
