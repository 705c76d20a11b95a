"""Pictures: grids of images as PNG, images that appear pixel by pixel as GIF, heat maps of surprise."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from arlm.domains import ImageDomain
from arlm.reports.files import PICTURES, check_suffix, write_bytes

SIDE = 64  # approximate side in pixels to which small images are enlarged
SCALE = 16  # height in pixels of a scale of colours


def grid(images: Tensor, gap: int = 1, columns: int | None = None) -> Tensor:
    """Images (N, H, W, C) uint8 -> one picture (H', W', C), nearly square, with white lines between them."""
    count, height, width, _ = images.shape
    zoom = max(1, SIDE // max(height, width))
    images = images.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    columns = columns or math.ceil(math.sqrt(count))
    missing = -count % columns
    gap *= max(1, zoom // 2)
    images = F.pad(images, (0, 0, gap, 0, gap, 0, 0, missing), value=255)
    picture = rearrange(images, "(r c) h w ch -> (r h) (c w) ch", c=columns)
    return F.pad(picture, (0, 0, 0, gap, 0, gap), value=255)


def framed(images: Tensor, region: Tensor) -> Tensor:
    """Images (N, H, W, C) uint8, enlarged and in colour, with a red line along the inner edge of a region (H, W)."""
    zoom = max(1, SIDE // max(images.shape[1:3]))
    images = images.expand(-1, -1, -1, 3).repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)
    inside = region.repeat_interleave(zoom, 0).repeat_interleave(zoom, 1)
    width = max(1, zoom // 4)
    outside = F.pad((~inside).float()[None, None], [width] * 4, value=1.0)
    line = inside & (F.max_pool2d(outside, 2 * width + 1, 1)[0, 0] > 0)
    return images.where(~line[..., None], torch.tensor([214, 69, 65], dtype=torch.uint8))


def write_image(picture: Tensor, path: Path) -> Path:
    """Write (H, W, C) uint8, C 1 or 3, in the format of the suffix, one of `PICTURES`."""
    check_suffix(path, PICTURES)
    return write_bytes(_encoded(_pixels(picture), path), path)


def png(images: Tensor) -> bytes:
    """Images (N, H, W, C) uint8 as a grid, encoded as PNG."""
    return encoded(grid(images))


def encoded(picture: Tensor) -> bytes:
    """A picture (H, W, C) uint8, C 1 or 3, encoded as PNG."""
    file = io.BytesIO()
    _pixels(picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def _encoded(image: Image.Image, path: Path, **options: Any) -> bytes:
    """The content of an image file in the format of the suffix; encoded in memory, so that no half file is left."""
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[path.suffix.lower()], **options)
    return file.getvalue()


def _pixels(picture: Tensor) -> Image.Image:
    return Image.fromarray((picture.squeeze(-1) if picture.shape[-1] == 1 else picture).numpy())


def labelled_grid(rows: dict[str, Tensor]) -> Tensor:
    """A row of images (N, H, W, C) for each name, with the name on its left: (H', W', C)."""
    strips = [grid(images, columns=len(images)) for images in rows.values()]
    height, _, channels = strips[0].shape
    titles = [_title(name, height, channels) for name in rows]
    width = max(title.shape[1] for title in titles)
    titles = [F.pad(t, (0, 0, 0, width - t.shape[1]), value=255) for t in titles]
    return torch.cat([torch.cat(pair, 1) for pair in zip(titles, strips, strict=True)])


def _title(text: str, height: int, channels: int) -> Tensor:
    """Black text on white, (height, W, channels), vertically centred."""
    left, top, right, bottom = ImageFont.load_default(12).getbbox(text)
    picture = Image.new("L", (math.ceil(right - left) + 8, height), 255)
    origin = (4 - left, (height - (bottom - top)) // 2 - top)
    ImageDraw.Draw(picture).text(origin, text, 0, font=ImageFont.load_default(12))
    return torch.from_numpy(np.array(picture))[..., None].expand(-1, -1, channels)


def appearing(
    domain: ImageDomain, tokens: Tensor, frames: int, given: Tensor | None = None
) -> list[Tensor]:
    """Grids of the images at several stages of sampling; pixels not yet sampled are mid-grey.

    Args:
        domain: decodes the tokens.
        tokens: (N, T).
        frames: number of grids after the first, which shows what is given; the last one is complete.
        given: (N, T) bool, tokens that are shown from the start.
    """
    images, length = domain.decode(tokens), tokens.shape[1]
    position = torch.arange(length).expand_as(tokens)
    present = torch.zeros_like(tokens, dtype=torch.bool) if given is None else given
    pictures = []
    for frame in range(frames + 1):
        drawn = (position < round(length * frame / frames)) | present.cpu()
        shown = rearrange(drawn, "n (h w c) -> n h w c", w=domain.width, c=domain.channels)
        pictures.append(grid(torch.where(shown, images, 128)))
    return pictures


def write_animation(pictures: list[Tensor], path: Path, seconds: float = 4.0) -> Path:
    """Write pictures (H, W, C) as a GIF that lasts `seconds` and then shows the last picture for 1.5 s."""
    check_suffix(path, (".gif",), "--gif")
    first, *rest = (_pixels(p) for p in pictures)
    each = max(20, round(1000 * seconds / len(pictures)))
    times = [each] * len(rest) + [1500]
    frames = {"append_images": rest, "duration": times}
    return write_bytes(_encoded(first, path, save_all=True, loop=0, **frames), path)


def heat_map(images: Tensor, bits: Tensor) -> Tensor:
    """Each image beside a map of its surprise, and below them the scale of the maps: (H', W', 3).

    A map is dark for zero and bright for the largest value of all images.

    Args:
        images: (N, H, W, C) uint8.
        bits: (N, H, W), surprise of each pixel, at least 0.
    """
    import matplotlib  # late: few pictures have a scale of colours

    largest = float(bits.amax())
    level = (bits / max(largest, 1e-9) * 255).round().long()
    magma = torch.from_numpy(np.array(matplotlib.colormaps["magma"](np.arange(256))))
    colours = (magma[:, :3] * 255).round().to(torch.uint8)
    both = torch.stack([images.expand(*images.shape[:3], 3), colours[level]], dim=1).flatten(0, 1)
    picture = grid(both, columns=2)
    return torch.cat([picture, _scale(colours, f"{largest:.1f} bits", picture.shape[1])])


def _scale(colours: Tensor, largest: str, width: int) -> Tensor:
    """The colours (N, 3) from left to right, between "0" and a text: (H', width, 3)."""
    ends = [_title(text, SCALE, 3) for text in ("0", largest)]
    room = max(1, width - sum(end.shape[1] for end in ends))
    bar = colours[torch.linspace(0, len(colours) - 1, room).round().long()].expand(SCALE, -1, -1)
    whole = torch.cat([ends[0], bar, ends[1]], dim=1)[:, :width]
    return F.pad(whole, (0, 0, 0, width - whole.shape[1]), value=255)
