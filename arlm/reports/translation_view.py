"""TranslationView: source, reference and translation, attention maps, BLEU and chrF."""

from __future__ import annotations

from torch import Tensor

from arlm.domains import TranslationDomain
from arlm.inference.items import ItemScores
from arlm.reports.page import fragment
from arlm.reports.pair_view import PairView


class TranslationView(PairView[TranslationDomain]):
    """Translations with their sources and references."""

    purpose = "translates"
    heading = "Translations of the same sentences"
    line = "sentence"

    def source_of(self, text: str, name: str) -> str:
        return text

    def context_pieces(self, context: Tensor) -> list[str]:
        return self.domain.pieces(context, self.domain.source)

    def surprise(self, scored: ItemScores, most: int | None = None) -> str:
        coloured = super().surprise(scored, most)
        context = scored.item.context
        source = "" if context is None else self.domain.source.decode(context)
        return fragment("pair.html", source=source, coloured=coloured)
