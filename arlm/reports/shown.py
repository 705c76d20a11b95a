"""What a view makes of samples: texts, images and further pictures, for pages and for files."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from arlm.reports.files import write_bytes, write_text
from arlm.reports.page import fragment


@dataclass
class Shown:
    """Samples for presentation.

    Args:
        tokens: number of tokens that were sampled.
        texts: samples as text.
        images: samples as images, (N, H, W, C) uint8.
        pictures: further pictures as PNG, by name.
        files: samples in a format of the domain's own, as bytes by what follows the stem of the file's name:
            {".mid": ...}, or {"-0.mid": ..., "-1.mid": ...} for a file of each sample.
    """

    tokens: int
    texts: list[str] = field(default_factory=list)
    images: Tensor | None = None
    pictures: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def html(self) -> str:
        """The samples as HTML with embedded pictures."""
        pictures = {}
        if self.images is not None:
            from arlm.reports.images import png  # late: texts need no library of images

            pictures["samples"] = png(self.images)
        encoded = {name: data_url(content) for name, content in (pictures | self.pictures).items()}
        waves = [content for name, content in self.files.items() if name.endswith(".wav")]
        sounds = [data_url(content, "audio/wav") for content in waves]
        return fragment("shown.html", texts=self.texts, pictures=encoded, sounds=sounds)

    def save(self, stem: Path, columns: int | None = None) -> list[Path]:
        """Write `stem`.txt for texts, `stem`.png for images and for each picture; returns the paths."""
        paths = []
        if self.texts:
            text = "".join(f"--- {i}\n{text}\n" for i, text in enumerate(self.texts))
            paths.append(write_text(text, Path(f"{stem}.txt")))
        if self.images is not None:
            from arlm.reports.images import grid, write_image

            paths.append(write_image(grid(self.images, columns=columns), Path(f"{stem}.png")))
        for name, content in self.pictures.items():
            alone = self.images is None and len(self.pictures) == 1
            path = Path(f"{stem}.png") if alone else Path(f"{stem}-{name}.png")
            paths.append(write_bytes(content, path))
        for name, content in self.files.items():
            paths.append(write_bytes(content, Path(f"{stem}{name}")))
        return paths


@dataclass(frozen=True)
class Drawn:
    """Rows that a network has drawn; `show` makes what people look at, which may take longer than drawing.

    Args:
        tokens: number of tokens that were sampled.
        show: makes the presentation.
    """

    tokens: int
    show: Callable[[], Shown]


def data_url(content: bytes, kind: str = "image/png") -> str:
    """A file as a URL that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
