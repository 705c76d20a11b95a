"""Images as tokens: one token for each channel of a pixel, in raster order "h w c -> (h w c)"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from arlm.core import Spec
from arlm.domains.base import Domain
from arlm.errors import UserError, require

RASTER = "... h w c -> ... (h w c)"
# Those that are read by libraries of pictures alone: EPS, for example, would start Ghostscript.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
MOST_PIXELS = 2**26  # of a file: 200 MB in memory
UNRASTER = "... (h w c) -> ... h w c"


class ImageDomain(Domain):
    """uint8 images (..., H, W, C) <-> tokens (..., H * W * C) with `levels` equal steps of brightness.

    With 256 levels the round trip is exact; with fewer, `encode(decode(tokens)) == tokens`.

    Args:
        levels: 2 to 256.
        height, width, channels: size of the image.
    """

    unit = "dim"
    view = "arlm.reports.image_view.ImageView"

    def __init__(self, levels: int, height: int, width: int, channels: int = 1) -> None:
        require(2 <= levels <= 256, "levels", levels, "choose 2 to 256")
        self.levels, self.height, self.width, self.channels = levels, height, width, channels
        self.vocab_size = levels
        level = torch.arange(levels)
        darkest = -(-level * 256 // levels)  # each level's darkest and brightest 8-bit value
        brightest = -(-(level + 1) * 256 // levels) - 1
        spread = (level * 255 / (levels - 1)).round().long()  # black stays 0 and white 255
        self._values = spread.clamp(darkest, brightest).to(torch.uint8)

    @property
    def spec(self) -> Spec:
        """The data as a network sees it."""
        shape = (self.height, self.width, self.channels)
        return Spec(self.levels, shape, unit=self.unit)

    def read(self, path: Path, field: str) -> Tensor:
        """Read an image file of this domain's size as tokens (T,); errors name `field`."""
        return self.encode(self.read_native(path, field))

    def read_native(self, path: Path, field: str) -> Tensor:
        """Read an image file of this domain's size as uint8 (H, W, C); errors name `field`."""
        native = read_image(path, self.channels, field)
        if native.shape[:2] != (self.height, self.width):
            height, width, _ = native.shape
            raise UserError(
                f"{field}: '{path}' is {width}x{height} pixels; "
                f"give an image of {self.width}x{self.height}"
            )
        return native

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


def check_levels(levels: int) -> int:
    """Raise a UserError unless `levels` divides the 256 values of a byte evenly."""
    fits = 2 <= levels <= 256 and 256 % levels == 0
    require(fits, "data.levels", levels, "choose a power of two, 2 to 256")
    return levels


def read_image(path: Path, channels: int, field: str) -> Tensor:
    """Read an 8-bit image file without transparency as uint8 (H, W, channels); errors name `field`.

    Of an animation, the first picture is read.
    """
    from PIL import Image, UnidentifiedImageError  # late: no other domain needs it

    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ValueError("it is a pipe or a device")  # whose reading may never end
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels, more than {MOST_PIXELS:,}")
            image.load()
        _check_mode(image, path, field)
        mode = {1: "L", 3: "RGB"}[channels]
        pixels = np.array(image if image.mode == mode else image.convert(mode))
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{field}: '{path}' is not an image; give a PNG or JPEG file") from None
    except Exception as error:  # a damaged file may raise anything in the library that reads it
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{field}: cannot read '{path}' ({reason}); check the file") from None
    return torch.from_numpy(pixels).view(*pixels.shape[:2], channels)


def _check_mode(image: Any, path: Path, field: str) -> None:
    """Refuse more than 8 bits, and transparency."""
    if image.mode.startswith(("I", "F")):
        raise UserError(
            f"{field}: '{path}' has more than 8 bits a channel (mode {image.mode}); "
            "convert it to 8 bits"
        )
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        raise UserError(
            f"{field}: '{path}' has an alpha channel (mode {image.mode}); flatten it first"
        )
