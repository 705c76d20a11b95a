"""Images as tokens: one token a channel of a pixel, in raster order "h w c -> (h w c)"."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from arlm.core import Spec
from arlm.domains.base import Domain
from arlm.errors import UserError, require

RASTER = "... h w c -> ... (h w c)"
UNRASTER = "... (h w c) -> ... h w c"


class ImageDomain(Domain):
    """uint8 images (..., H, W, C) <-> tokens (..., H * W * C) of `levels` equal steps of brightness.

    With 256 levels the round trip is exact; with fewer, `encode(decode(tokens)) == tokens`.

    Args:
        levels: 2 to 256.
        height, width, channels: size of the image.
    """

    unit = "dim"

    def __init__(self, levels: int, height: int, width: int, channels: int = 1) -> None:
        require(2 <= levels <= 256, "levels", levels, "choose 2 to 256")
        self.levels, self.height, self.width, self.channels = levels, height, width, channels
        self.vocab_size = levels
        level = torch.arange(levels)
        lowest = -(-level * 256 // levels)  # each level's darkest and brightest 8-bit value
        brightest = -(-(level + 1) * 256 // levels) - 1
        spread = (level * 255 / (levels - 1)).round().long()  # black stays 0 and white 255
        self._values = spread.clamp(lowest, brightest).to(torch.uint8)

    @property
    def spec(self) -> Spec:
        """The data as a network sees it."""
        shape = (self.height, self.width, self.channels)
        return Spec(self.levels, shape, unit=self.unit)

    def encode(self, native: Tensor) -> Tensor:
        """uint8 (..., H, W, C) -> (..., T) int64."""
        shape = (self.height, self.width, self.channels)
        if native.dtype != torch.uint8 or tuple(native.shape[-3:]) != shape:
            raise UserError(
                f"image: {tuple(native.shape)} of {native.dtype} given; "
                f"expected (..., {', '.join(map(str, shape))}) of torch.uint8"
            )
        return rearrange(native.long() * self.levels // 256, RASTER)

    def decode(self, tokens: Tensor) -> Tensor:
        """(..., T) -> uint8 (..., H, W, C)."""
        sizes = {"h": self.height, "w": self.width, "c": self.channels}
        return rearrange(self._values[tokens.cpu()], UNRASTER, **sizes)

    def units(self, tokens: Tensor) -> Tensor:
        return torch.ones(tokens.shape, device=tokens.device)
