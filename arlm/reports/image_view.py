"""ImageView: samples as a grid, image completion, sweeps of a logits processor, and heat maps of surprise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from arlm.domains import ImageDomain
from arlm.errors import UserError
from arlm.reports.images import heat_map, labelled_grid, write_image
from arlm.reports.view import Shown, View


class ImageView(View[ImageDomain]):
    """Images in a grid."""

    verbs = frozenset({"sample", "score"})
    purpose = "draws images"
    refusals: ClassVar = {
        "prompt": "the checkpoint draws images; omit it, or give --complete",
        "beam": "beam search does not apply to images; omit it",
        "length": "images have a fixed size; omit it",
        "stream": "images are not text; omit it, or give --gif",
        "stop": "images are not text; omit it",
    }
    default_out = "samples.png"

    def show(self, tokens: Tensor) -> Shown:
        return Shown(tokens.numel(), images=self.domain.decode(tokens))

    def forced(self, options: dict[str, Any], length: int) -> Tensor | None:
        """The tokens (1, T) of the image to complete, -1 where they are to be sampled."""
        if not options["complete"]:
            return None
        tokens = self.domain.read(Path(options["complete"]), "--complete")
        return torch.where(self._kept(options["keep"]), tokens, -1)[None]

    def write(self, drawn: dict[str, Tensor], out: Path, columns: int | None = None) -> list[Path]:
        if len(drawn) == 1:
            return super().write(drawn, out, columns)
        rows = {name: self.domain.decode(tokens) for name, tokens in drawn.items()}
        return [write_image(labelled_grid(rows), out)]

    def write_heat_map(self, tokens: Tensor, nats: Tensor, out: Path) -> Path:
        """Write images (N, T), each beside a map of its pixels' surprise, from nats (N, T)."""
        domain = self.domain
        pixels = nats.view(-1, domain.height, domain.width, domain.channels).sum(-1)
        return write_image(heat_map(domain.decode(tokens), pixels / math.log(2)), out)

    def _kept(self, keep: str) -> Tensor:
        """Mask (T,) of the tokens that are given, from a side and a share, such as "top:0.5"."""
        domain = self.domain
        side, _, number = keep.partition(":")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if side not in ("top", "bottom", "left", "right") or not 0 < share < 1:
            raise UserError(
                f"--keep: {keep!r} is not understood; "
                "write top, bottom, left or right and a share, such as top:0.5"
            )
        rows = torch.linspace(0, 1, domain.height + 1)[:-1] + 0.5 / domain.height
        columns = torch.linspace(0, 1, domain.width + 1)[:-1] + 0.5 / domain.width
        distance = rows[:, None] if side in ("top", "bottom") else columns
        distance = distance.expand(domain.height, domain.width)
        inside = distance < share if side in ("top", "left") else distance > 1 - share
        return inside[..., None].expand(-1, -1, domain.channels).flatten()
