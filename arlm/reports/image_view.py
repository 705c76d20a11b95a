"""ImageView: samples as a grid, image completion, sweeps of a logits processor, and heat maps of surprise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.domains import ImageDomain
from arlm.inference.items import Item, ItemScores
from arlm.reports.files import PICTURES
from arlm.reports.images import (
    appearing,
    encoded,
    framed,
    grid,
    heat_map,
    labelled_grid,
    write_animation,
    write_image,
)
from arlm.reports.keep import side_and_share
from arlm.reports.page import fragment
from arlm.reports.shown import Shown, data_url
from arlm.reports.view import View

FRAMES = 60  # of an animation
SHOWN_IMAGES = 8  # whose surprise a report shows


class ImageView(View[ImageDomain]):
    """Images in a grid."""

    verbs = frozenset({"sample", "score", "attention"})
    purpose = "draws images"
    refusals: ClassVar = {
        "prompt": "the checkpoint draws images; omit it, or give --complete",
        "beam": "beam search does not apply to images; omit it",
        "max_new_tokens": "images have a fixed size; omit it",
        "json": "images are not text; omit it",
        "stream": "images are not text; omit it, or give --gif",
        "stop": "images are not text; omit it",
    }
    default_out, default_n, suffixes = "samples.png", 16, PICTURES

    @property
    def shown_tokens(self) -> int:
        return SHOWN_IMAGES * self.domain.spec.length

    @property
    def columns(self) -> int:
        return self.domain.width * self.domain.channels

    def show(self, tokens: Tensor) -> Shown:
        return Shown(tokens.numel(), images=self.domain.decode(tokens))

    def forced(self, options: dict[str, Any]) -> Tensor | None:
        """The tokens (1, T) of the image to complete, -1 where they are to be sampled."""
        if not options["complete"]:
            return None
        tokens = self._completed(options)
        return torch.where(self._kept(options["keep"]), tokens, -1)[None]

    def write(
        self,
        drawn: dict[str, Tensor],
        out: Path,
        columns: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> list[Path]:
        """A grid; a row for each entry of a sweep. Completions stand after the image that is completed."""
        rows = {name: self.domain.decode(tokens) for name, tokens in drawn.items()}
        if options and options["complete"]:
            original = self.domain.decode(self._completed(options)[None])
            kept = self._kept(options["keep"]).view(self.domain.spec.shape)[..., 0]
            rows = {name: framed(torch.cat([original, row]), kept) for name, row in rows.items()}
        if len(rows) == 1:
            (images,) = rows.values()
            return [write_image(grid(images, columns=columns), out)]
        return [write_image(labelled_grid(rows), out)]

    def animate(self, tokens: Tensor, given: Tensor | None, out: Path) -> Path:
        return write_animation(appearing(self.domain, tokens, FRAMES, given), out)

    def read(self, path: str) -> Tensor:
        return self.domain.read(Path(path), "image")

    def to_attend(self, text: str, net: Autoregressor) -> Item:
        return Item(text, self.read(text))

    def pieces(self, tokens: Tensor) -> list[str]:
        return [str(token) for token in tokens.tolist()]

    def surprise(self, scored: ItemScores, most: int | None = None) -> str:
        """Images beside maps of their surprise, at least one."""
        size = self.domain.spec.length
        shown = scored.cut(max(1, (most or self.shown_tokens) // size) * size)
        return self._picture(heat_map(*self._pixels([shown])), "images and their surprise")

    def difference(self, a: ItemScores, b: ItemScores, names: tuple[str, str]) -> str:
        """Images beside maps of the pixels that the first model knew better."""
        images, ours = self._pixels([a.cut(self.shown_tokens)])
        _, other = self._pixels([b.cut(self.shown_tokens)])
        title = f"images, and where {names[0]} is better"
        return self._picture(heat_map(images, (other - ours).clamp(min=0)), title)

    def write_surprise(self, scored: Sequence[ItemScores], out: Path) -> Path:
        return write_image(heat_map(*self._pixels(scored)), out)

    def _pixels(self, scored: Sequence[ItemScores]) -> tuple[Tensor, Tensor]:
        """Images (N, H, W, C), and the bits of each of their pixels (N, H, W)."""
        domain = self.domain
        shape = -1, domain.height, domain.width, domain.channels
        tokens = torch.cat([one.tokens for one in scored]).view(-1, domain.spec.length)
        nats = torch.cat([one.nats for one in scored]).view(shape).sum(-1)
        return domain.decode(tokens), nats / math.log(2)

    @staticmethod
    def _picture(picture: Tensor, title: str) -> str:
        return fragment(
            "shown.html", texts=[], pictures={title: data_url(encoded(picture))}, sounds=[]
        )

    def _completed(self, options: dict[str, Any]) -> Tensor:
        """The tokens (T,) of the image to complete."""
        return self.domain.read(Path(options["complete"]), "--complete")

    def _kept(self, keep: str) -> Tensor:
        """Mask (T,) of the tokens that are given, from a side and a share, such as "top:0.5"."""
        domain = self.domain
        side, share = side_and_share(keep)
        rows = torch.linspace(0, 1, domain.height + 1)[:-1] + 0.5 / domain.height
        columns = torch.linspace(0, 1, domain.width + 1)[:-1] + 0.5 / domain.width
        distance = rows[:, None] if side in ("top", "bottom") else columns
        distance = distance.expand(domain.height, domain.width)
        inside = distance < share if side in ("top", "left") else distance > 1 - share
        return inside[..., None].expand(-1, -1, domain.channels).flatten()
