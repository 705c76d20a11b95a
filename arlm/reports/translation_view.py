"""TranslationView: source, reference and translation, attention maps, BLEU and chrF."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from arlm.core import Autoregressor
from arlm.data.pairs import aligned
from arlm.data.text_files import named_lines
from arlm.domains import TranslationDomain
from arlm.errors import UserError
from arlm.inference.items import Item, ItemScores
from arlm.inference.translator import Source, Translation
from arlm.reports.attention_map import attention_maps
from arlm.reports.page import fragment
from arlm.reports.pair_view import PairView, tabbed
from arlm.reports.shown import Shown

MAPS = 4  # number of attention maps in a picture


class TranslationView(PairView[TranslationDomain]):
    """Translations with their sources and references."""

    purpose = "translates"
    heading = "Translations of the same sentences"

    def sources(self, files: Sequence[str]) -> Iterator[Source]:
        """Each line of the files."""
        for file in files:
            for name, line in named_lines(file):
                yield Source(name, line.strip(), line)

    def source_of(self, text: str, name: str) -> str:
        return text

    def attention_map(
        self, net: Autoregressor, translated: Sequence[tuple[Tensor, Translation]]
    ) -> bytes | None:
        return attention_maps(net, self.domain, translated)

    def compared(
        self,
        net: Autoregressor,
        tokens: int,
        sources: Sequence[Any],
        references: Sequence[str],
        found: Sequence[tuple[Tensor, Translation]],
    ) -> Shown:
        texts = [
            f"{source}\n= {reference}\n> {best.text}"
            for source, reference, (_, best) in zip(sources, references, found, strict=True)
        ]
        picture = attention_maps(net, self.domain, found[:MAPS])
        return Shown(
            tokens, texts=texts, pictures={} if picture is None else {"attention": picture}
        )

    def to_score(
        self, files: Sequence[str], options: dict[str, Any], net: Autoregressor
    ) -> list[Item]:
        """Pairs: two files whose lines are translations of each other, or one with a tab in each line."""
        self.check_scored(options)
        if len(files) == 2:
            sources, targets = aligned(Path(files[0]), Path(files[1]), "FILE")
        elif len(files) == 1:
            sources, targets = tabbed(files[0])
        else:
            raise UserError(
                f"FILE: {len(files)} files given; give SOURCE and TARGET, whose lines are "
                "translations of each other, or one file with a tab in each line"
            )
        return [
            self.item(f"{files[-1]}:{number}", source, target, net)
            for number, (source, target) in enumerate(zip(sources, targets, strict=True), start=1)
        ]

    def context_pieces(self, context: Tensor) -> list[str]:
        return self.domain.pieces(context, self.domain.source)

    def surprise(self, scored: ItemScores, most: int | None = None) -> str:
        coloured = super().surprise(scored, most)
        context = scored.item.context
        source = "" if context is None else self.domain.source.decode(context)
        return fragment("pair.html", source=source, coloured=coloured)
