"""TranslationView: source, reference and translation, attention maps, BLEU and chrF."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from arlm.core import Autoregressor
from arlm.domains import TranslationDomain
from arlm.inference.translator import Translator
from arlm.reports.attention_map import attention_maps
from arlm.reports.text_view import coloured
from arlm.reports.view import Shown, View
from arlm.sampling import Sampler

if TYPE_CHECKING:
    from arlm.data.folders import Split

MAPS = 4  # number of attention maps in a picture


class TranslationView(View[TranslationDomain]):
    """Translations with their sources and references."""

    verbs = frozenset({"translate"})
    purpose = "translates"
    heading = "Translations of the same sentences"

    def show(self, tokens: Tensor) -> Shown:
        return Shown(tokens.numel(), texts=[self.domain.decode(row) for row in tokens])

    def draw(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        n: int,
        seed: int = 0,
        length: int | None = None,
        sampler: Sampler = Sampler(),  # noqa: B008  (frozen)
        beam: int = 5,
    ) -> Shown:
        """Translations of the split's first `n` sentences by beam search, with attention maps."""
        sources, references = (side[:n] for side in data.sentences(split))
        found = Translator(net, self.domain, beam=beam).lines(sources, f"data.{split}")
        texts = [
            f"{source}\n= {reference}\n> {best.text}"
            for source, reference, (_, best) in zip(sources, references, found, strict=True)
        ]
        picture = attention_maps(net, self.domain, found[:MAPS])
        pictures = {} if picture is None else {"attention": picture}
        return Shown(sum(len(best.tokens) for _, best in found), texts=texts, pictures=pictures)

    def surprise(self, tokens: Tensor, nats: Tensor) -> str:
        return coloured(tokens, nats, self.domain.decode)

    def quality(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        beam: int,
        length_penalty: float,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """BLEU, chrF and exact matches of a split's translations."""
        from arlm.evaluation.bleu import score_translations  # sacrebleu takes a while to import

        translator = Translator(net, self.domain, beam=beam, length_penalty=length_penalty)
        pairs = data.sentences(split)
        found = translator.lines(pairs.source, "data", progress)
        scores = score_translations([best.text for _, best in found], pairs.target)
        return {f"translations, beam {beam}": scores._asdict()}

    def items(self, data: Any, split: Split) -> int:
        return len(data.sentences(split).source)
