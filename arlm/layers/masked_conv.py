"""Masked convolutions: the receptive field of a pixel contains only earlier pixels in raster order.

References:
    | Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016), section 3.4
    | https://arxiv.org/abs/1601.06759
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = int | tuple[int, int]


def channel_groups(features: int, channels: int) -> Tensor:
    """The image channel that each feature belongs to, (features,): R first, then G, then B."""
    return torch.arange(features) * channels // features


def raster_mask(
    kind: Literal["A", "B"], out_features: int, in_features: int, kernel: Size, channels: int
) -> Tensor:
    """Mask of a convolution, (out, in, rows, columns) of 0 and 1.

    A 3x3 kernel sees, with # for the centre:

        1 1 1
        1 # 0      # is 0 in mask A and 1 in mask B
        - - -      never stored

    If the image has several channels, then at the centre a feature of channel c sees features of earlier
    channels (mask A), or of earlier channels and of c (mask B):

        mask A   R G B        mask B   R G B    source
        R        . . .        R        1 . .
        G        1 . .        G        1 1 .
        B        1 1 .        B        1 1 1
        target

    Rows below the centre are not stored, nor are columns right of the centre if the kernel has one row.
    """
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    rows, centre = height // 2 + 1, width // 2
    mask = torch.zeros(out_features, in_features, rows, width if rows > 1 else centre + 1)
    mask[:, :, :-1] = 1
    mask[:, :, -1, :centre] = 1
    target = channel_groups(out_features, channels)[:, None]
    source = channel_groups(in_features, channels)[None, :]
    mask[:, :, -1, centre] = (source < target if kind == "A" else source <= target).float()
    return mask


class MaskedConv2d(nn.Module):
    """Size-preserving convolution whose weight is multiplied by a raster mask, A or B.

    Args:
        kind: "A" for the first layer, which must not see the pixel itself; "B" for later layers.
        in_features, out_features: feature maps; multiples of `channels`.
        kernel: odd width of the square kernel, or its odd height and width.
        channels: channels of the image, in the order in which they are modelled.

    Shapes: (B, in_features, H, W) -> (B, out_features, H, W).
    """

    mask: Tensor

    def __init__(
        self,
        kind: Literal["A", "B"],
        in_features: int,
        out_features: int,
        kernel: Size,
        channels: int,
    ) -> None:
        super().__init__()
        mask = raster_mask(kind, out_features, in_features, kernel, channels)
        self.register_buffer("mask", mask, persistent=False)
        self.full = bool(mask.all())
        self.weight = nn.Parameter(torch.empty(mask.shape))
        self.bias = nn.Parameter(torch.empty(out_features))
        rows, columns = mask.shape[2:]
        self.centre = columns // 2 if rows > 1 else columns - 1
        self.pads = (self.centre, columns - 1 - self.centre, rows - 1, 0)
        bound = (in_features * rows * columns) ** -0.5  # as torch.nn.Conv2d
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def masked(self) -> Tensor:
        """The masked weight, (out, in, rows, columns)."""
        return self.weight if self.full else self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        if any(self.pads):
            x = F.pad(x, self.pads)
        return F.conv2d(x, self.masked(), self.bias)

    def at_pixels(self, x: Tensor) -> Tensor:
        """Apply a 1x1 layer to features in the last axis, (..., in_features) -> (..., out_features)."""
        return F.linear(x, self.masked()[:, :, 0, 0], self.bias)

    def above(self) -> Tensor:
        """Weights of the taps in the rows above, (out, in, rows - 1, columns)."""
        return self.masked()[:, :, :-1]

    def here(self) -> Tensor:
        """Weights of the pixel's own row up to the centre, (taps * in, out), for `window @ weights`."""
        row = self.masked()[:, :, -1, : self.centre + 1]
        return row.permute(2, 1, 0).flatten(0, 1)
