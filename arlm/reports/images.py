"""Results to look at: grids of images as PNG, texts as TXT."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
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


def png(images: Tensor) -> bytes:
    """Images (N, H, W, C) uint8 as a grid, a PNG in memory."""
    picture, file = grid(images), io.BytesIO()
    pixels = picture.squeeze(-1) if picture.shape[-1] == 1 else picture
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()


def labelled_grid(rows: dict[str, Tensor]) -> Tensor:
    """One row of images (N, H, W, C) for each name, which stands on its left: (H', W', C)."""
    strips = [grid(images, columns=len(images)) for images in rows.values()]
    height, _, channels = strips[0].shape
    titles = [_text(name, height, channels) for name in rows]
    width = max(title.shape[1] for title in titles)
    titles = [F.pad(t, (0, 0, 0, width - t.shape[1]), value=255) for t in titles]
    return torch.cat([torch.cat(pair, 1) for pair in zip(titles, strips, strict=True)])


def _text(text: str, height: int, channels: int) -> Tensor:
    """Black on white, (height, W, channels), in the middle of the height."""
    left, top, right, bottom = ImageFont.load_default(12).getbbox(text)
    picture = Image.new("L", (math.ceil(right - left) + 8, height), 255)
    place = (4 - left, (height - (bottom - top)) // 2 - top)
    ImageDraw.Draw(picture).text(place, text, 0, font=ImageFont.load_default(12))
    return torch.from_numpy(np.array(picture))[..., None].expand(-1, -1, channels)


def growing(
    domain: ImageDomain, tokens: Tensor, frames: int, given: Tensor | None = None
) -> list[Tensor]:
    """Grids of the images as their pixels appear, mid-grey where none is yet.

    Args:
        tokens: (N, T).
        frames: pictures, the last of them complete.
        given: (N, T) bool, tokens that are there from the start.
    """
    images, length = domain.decode(tokens), tokens.shape[1]
    place = torch.arange(length).expand_as(tokens)
    there = torch.zeros_like(tokens, dtype=torch.bool) if given is None else given
    pictures = []
    for frame in range(frames):
        done = (place < round(length * (frame + 1) / frames)) | there.cpu()
        shown = rearrange(done, "n (h w c) -> n h w c", w=domain.width, c=domain.channels)
        pictures.append(grid(torch.where(shown, images, 128)))
    return pictures


def write_animation(pictures: list[Tensor], path: Path, seconds: float = 4.0) -> Path:
    """Write pictures (H, W, C) as a GIF that goes on for so long and then rests on the last."""
    path = path.with_suffix(".gif")
    first, *rest = (Image.fromarray(p.squeeze(-1).numpy()) for p in pictures)
    each = max(20, round(1000 * seconds / len(pictures)))
    times = [each] * len(rest) + [1500]
    _write(
        path,
        lambda: first.save(path, save_all=True, append_images=rest, duration=times, loop=0),
    )
    return path


def heat_map(images: Tensor, bits: Tensor) -> Tensor:
    """Each image beside its surprise in bits, dark for none and bright for the most: (H', W', 3).

    Args:
        images: (N, H, W, C) uint8.
        bits: (N, H, W), at least 0.
    """
    level = (bits / bits.amax().clamp(min=1e-9) * 255).round().long()
    colours = torch.from_numpy(np.array(matplotlib.colormaps["magma"](np.arange(256))))
    shown = (colours[level][..., :3] * 255).round().to(torch.uint8)
    both = torch.stack([images.expand(*images.shape[:3], 3), shown], dim=1).flatten(0, 1)
    return grid(both, columns=2)


def write_samples(domain: Domain, tokens: Tensor, stem: Path, columns: int | None = None) -> Path:
    """Write rows of tokens (N, T) as a grid `stem`.png or as texts `stem`.txt; returns the path."""
    if isinstance(domain, ImageDomain):
        return write_image(grid(domain.decode(tokens), columns=columns), stem)
    texts = (f"--- {i}\n{domain.decode(row)}\n" for i, row in enumerate(tokens))
    return write_text("".join(texts), stem.with_suffix(".txt"))


def write_text(text: str, path: Path) -> Path:
    """Write UTF-8 text."""
    _write(path, lambda: path.write_text(text, encoding="utf-8"))
    return path


def write_bytes(content: bytes, path: Path) -> Path:
    """Write a picture that is encoded already."""
    _write(path, lambda: path.write_bytes(content))
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
