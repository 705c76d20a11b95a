"""Results to look at: grids of images as PNG, texts as TXT."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from arlm.domains import Domain, ImageDomain
from arlm.errors import UserError

SIDE = 64  # pixels that a small image is enlarged to, about


def grid(images: Tensor, gap: int = 1, columns: int | None = None) -> Tensor:
    """Images (N, H, W, C) uint8 -> one picture (H', W', C), nearly square, with white lines between."""
    count, height, width, _ = images.shape
    zoom = max(1, SIDE // max(height, width))
    images = images.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    columns = columns or math.ceil(math.sqrt(count))
    missing = -count % columns
    gap *= max(1, zoom // 2)
    images = F.pad(images, (0, 0, gap, 0, gap, 0, 0, missing), value=255)
    picture = rearrange(images, "(r c) h w ch -> (r h) (c w) ch", c=columns)
    return F.pad(picture, (0, 0, 0, gap, 0, gap), value=255)


def write_image(picture: Tensor, path: Path) -> Path:
    """Write (H, W, C) uint8, C 1 or 3, as PNG."""
    pixels = picture.squeeze(-1) if picture.shape[-1] == 1 else picture
    path = path.with_suffix(".png")
    _write(path, lambda: Image.fromarray(pixels.numpy()).save(path))
    return path


def write_samples(domain: Domain, tokens: Tensor, stem: Path) -> Path:
    """Write rows of tokens (N, T) as a grid `stem`.png or as texts `stem`.txt; returns the path."""
    if isinstance(domain, ImageDomain):
        return write_image(grid(domain.decode(tokens)), stem)
    texts = (f"--- {i}\n{domain.decode(row)}\n" for i, row in enumerate(tokens))
    return write_text("".join(texts), stem.with_suffix(".txt"))


def write_text(text: str, path: Path) -> Path:
    """Write UTF-8 text."""
    _write(path, lambda: path.write_text(text, encoding="utf-8"))
    return path


def check_writable(path: Path) -> None:
    """Refuse a path that cannot be written, before hours of work and not after."""

    def touch() -> None:
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()

    _write(path, touch)


def _write(path: Path, action: Callable[[], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        action()
    except OSError as error:
        raise UserError(
            f"--out: cannot write '{path}' ({error.strerror or error}); choose a file you may write"
        ) from None
