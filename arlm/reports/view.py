"""View: how the samples, surprise and quality figures of one domain are presented.

A domain names its view by class path, since `arlm.reports` imports domains and not the other way round. With
a View of its own, a new domain is sampled, evaluated and compared like the others.
"""

from __future__ import annotations

import base64
import html
import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from torch import Tensor

from arlm.core import Autoregressor
from arlm.domains import Domain
from arlm.errors import UserError
from arlm.reports.files import write_bytes, write_text
from arlm.reports.images import grid, png, write_image
from arlm.sampling import Sampler, row_seeds

if TYPE_CHECKING:
    from arlm.data.folders import Split
    from arlm.data.module import TokenDataModule

D = TypeVar("D", bound=Domain)


@dataclass
class Shown:
    """Samples for presentation.

    Args:
        tokens: number of tokens that were sampled.
        texts: samples as text.
        images: samples as images, (N, H, W, C) uint8.
        pictures: further pictures as PNG, by name.
    """

    tokens: int
    texts: list[str] = field(default_factory=list)
    images: Tensor | None = None
    pictures: dict[str, bytes] = field(default_factory=dict)

    def html(self) -> str:
        """The samples as HTML with embedded pictures."""
        parts = [f"<pre>{html.escape(text)}</pre>" for text in self.texts]
        pictures = {} if self.images is None else {"samples": png(self.images)}
        for name, content in (pictures | self.pictures).items():
            data = base64.b64encode(content).decode()
            parts.append(f'<img alt="{name}" src="data:image/png;base64,{data}">')
        return "".join(parts)

    def save(self, stem: Path, columns: int | None = None) -> list[Path]:
        """Write `stem`.txt for texts, `stem`.png for images and for each picture; returns the paths."""
        paths = []
        if self.texts:
            text = "".join(f"--- {i}\n{text}\n" for i, text in enumerate(self.texts))
            paths.append(write_text(text, Path(f"{stem}.txt")))
        if self.images is not None:
            paths.append(write_image(grid(self.images, columns=columns), Path(f"{stem}.png")))
        for name, content in self.pictures.items():
            alone = self.images is None and len(self.pictures) == 1
            path = Path(f"{stem}.png") if alone else Path(f"{stem}-{name}.png")
            paths.append(write_bytes(content, path))
        return paths


class View(ABC, Generic[D]):
    """Presentation of one domain. A subclass writes `show`.

    Args:
        domain: decodes the tokens.
    """

    verbs: ClassVar[frozenset[str]]  # commands that apply, besides evaluate and compare
    purpose: ClassVar[str]  # what a checkpoint does, for messages: "draws images"
    refusals: ClassVar[dict[str, str]] = {}  # options of `arlm sample` that do not apply, and why
    default_out: ClassVar[str | None] = None  # file for samples; None prints them
    heading: ClassVar[str] = "Samples from the same seeds"  # in a report

    def __init__(self, domain: D) -> None:
        self.domain = domain

    @abstractmethod
    def show(self, tokens: Tensor) -> Shown:
        """Present rows of tokens (N, T)."""

    def forced(self, options: dict[str, Any], length: int) -> Tensor | None:
        """Forced tokens (1, T) from the options of `arlm sample`, -1 where free; None if there are none."""
        return None

    def write(self, drawn: dict[str, Tensor], out: Path, columns: int | None = None) -> list[Path]:
        """Write samples (N, T) by name (a single entry, except in a sweep); returns the paths."""
        (tokens,) = drawn.values()
        return self.show(tokens).save(out.with_suffix(""), columns)

    def draw(
        self,
        net: Autoregressor,
        data: TokenDataModule,
        split: Split,
        n: int,
        seed: int = 0,
        length: int | None = None,
        sampler: Sampler = Sampler(),  # noqa: B008  (frozen)
        beam: int = 5,
    ) -> Shown:
        """Samples of a network from fixed seeds, or translations of the first sentences of a split.

        Args:
            net: the network.
            data: its data module.
            split: the split to translate from.
            n: number of rows.
            seed: of the rows.
            length: tokens of a row; by default that of `net.spec`.
            sampler: draws the rows.
            beam: width of the beam for translations.
        """
        tokens = sampler(net, row_seeds(seed, n), length=length).tokens.cpu()
        return self.show(tokens)

    def surprise(self, tokens: Tensor, nats: Tensor) -> str:
        """Tokens (N,) as HTML, coloured by their surprise, nats (N,); empty if there is no such view."""
        return ""

    def quality(
        self,
        net: Autoregressor,
        data: TokenDataModule,
        split: Split,
        beam: int,
        length_penalty: float,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Figures other than the likelihood, such as BLEU, by the name of what they measure."""
        return {}

    def items(self, data: TokenDataModule, split: Split) -> int:
        """Number of items that `quality` processes, for a progress bar; 0 if it has none."""
        return 0

    def check_verb(self, verb: str, path: str) -> None:
        """Refuse a command that does not apply to the domain."""
        if verb not in self.verbs:
            mend = " or ".join(f"`arlm {name}`" for name in sorted({*self.verbs, "evaluate"}))
            raise UserError(
                f"checkpoint: '{path}' {self.purpose}, which `arlm {verb}` does not do; use {mend}"
            )

    def check_options(self, options: dict[str, Any]) -> None:
        """Refuse options of `arlm sample` that do not apply to the domain."""
        for name, reason in self.refusals.items():
            value = options.get(name)
            if value not in (None, "", []) and value is not False:
                raise UserError(f"--{name}: {value!r} given, but {reason}")


def view_of(domain: Domain) -> View:
    """The view whose class path the domain names."""
    path = getattr(domain, "view", None)
    module, _, name = str(path).rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        kind = None
    if not (isinstance(kind, type) and issubclass(kind, View)):
        raise UserError(
            f"domain: {type(domain).__name__} names no view of its own ({path!r}); set its `view` to the "
            "class path of a subclass of arlm.reports.view.View"
        )
    return kind(domain)
