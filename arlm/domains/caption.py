"""Pictures with captions as tokens: the picture is the context, the caption is modelled."""

from __future__ import annotations

from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from arlm.core import Spec
from arlm.domains.image import ImageDomain
from arlm.domains.pair import PairDomain
from arlm.errors import require
from arlm.tokenizers import Tokenizer

PATCHES = "... (h p) (w q) c -> ... (h w) (p q c)"
LARGEST = 2**16  # number of different patches


class CaptionDomain(PairDomain):
    """A picture and its caption <-> tokens.

    A token of the source is a patch of the picture, by default one pixel, in raster order. Its number has the
    levels of the patch's pixels and channels as its digits, to the base `levels`, the first one lowest.

    Args:
        tokenizer: of the captions.
        levels: steps of brightness of a channel, 2 to 256.
        height, width, channels: size of the pictures.
        patch: side of a patch in pixels; it divides height and width.
    """

    view = "arlm.reports.caption_view.CaptionView"

    def __init__(
        self,
        tokenizer: Tokenizer,
        levels: int,
        height: int,
        width: int,
        channels: int = 1,
        patch: int = 1,
    ) -> None:
        self.image = ImageDomain(levels, height, width, channels)
        fits = patch >= 1 and height % patch == width % patch == 0
        require(fits, "patch", patch, f"choose a divisor of {height} and {width}")
        numbers = patch * patch * channels
        most = f"choose fewer levels or smaller patches, for up to {LARGEST} different ones"
        require(levels**numbers <= LARGEST, "patch", patch, most)
        super().__init__(tokenizer, levels**numbers)
        self.patch = patch
        self.rows, self.columns = height // patch, width // patch  # of patches
        self._worth = levels ** torch.arange(numbers)

    def source_spec(self, length: int) -> Spec:
        return Spec(self.pad_id + 1, (self.rows, self.columns, 1), pad_id=self.pad_id, unit="dim")

    def encode_source(self, native: Tensor) -> Tensor:
        """A picture, uint8 (H, W, C) -> tokens (S,)."""
        image = self.image
        levels = self.image.encode(native).view(image.height, image.width, image.channels)
        patches = rearrange(levels, PATCHES, p=self.patch, q=self.patch)
        return (patches * self._worth).sum(-1)

    def decode_source(self, tokens: Tensor) -> Tensor:
        """Tokens (S,) -> the picture, uint8 (H, W, C), in this domain's levels of brightness."""
        digits = tokens.cpu()[:, None] // self._worth % self.image.levels
        sizes = {"h": self.rows, "p": self.patch, "q": self.patch}
        levels = rearrange(digits, "(h w) (p q c) -> (h p w q c)", **sizes)
        return self.image.decode(levels)

    def read_source(self, path: Path, field: str) -> Tensor:
        """A picture file of this domain's size, uint8 (H, W, C); errors name `field`."""
        return self.image.read_native(path, field)
