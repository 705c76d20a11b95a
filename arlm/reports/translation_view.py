"""TranslationView: source, reference and translation, attention maps, BLEU and chrF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from arlm.core import Autoregressor
from arlm.data.pairs import aligned
from arlm.domains import TranslationDomain
from arlm.errors import UserError
from arlm.inference.items import Item, ItemScores
from arlm.inference.translator import Translator
from arlm.reports.attention_map import attention_maps
from arlm.reports.page import fragment
from arlm.reports.shown import Drawn, Shown
from arlm.reports.text_view import text_of
from arlm.reports.tokens import pieces
from arlm.reports.view import View
from arlm.sampling import Sampler

if TYPE_CHECKING:
    from arlm.data.folders import Split

MAPS = 4  # number of attention maps in a picture


class TranslationView(View[TranslationDomain]):
    """Translations with their sources and references."""

    verbs = frozenset({"translate", "score", "attention"})
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
    ) -> Drawn:
        """Translations of the split's first `n` sentences by beam search, shown with attention maps."""
        sources, references = (side[:n] for side in data.sentences(split))
        found = Translator(net, self.domain, beam=beam).lines(sources, f"data.{split}")
        tokens = sum(len(best.tokens) for _, best in found)

        def show() -> Shown:
            texts = [
                f"{source}\n= {reference}\n> {best.text}"
                for source, reference, (_, best) in zip(sources, references, found, strict=True)
            ]
            picture = attention_maps(net, self.domain, found[:MAPS])
            pictures = {} if picture is None else {"attention": picture}
            return Shown(tokens, texts=texts, pictures=pictures)

        return Drawn(tokens, show)

    def to_score(
        self, files: Sequence[str], options: dict[str, Any], net: Autoregressor
    ) -> list[Item]:
        """Pairs: two files whose lines are translations of each other, or one with a tab in each line."""
        for name in ("prompt", "label"):
            if options[name] not in (None, ""):
                raise UserError(f"--{name}: the checkpoint translates; give pairs without it")
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
            self._item(f"{files[-1]}:{number}", source, target, net)
            for number, (source, target) in enumerate(zip(sources, targets, strict=True), start=1)
        ]

    def to_attend(self, text: str, net: Autoregressor) -> Item:
        """A sentence with its translation, or with the one that follows a tab."""
        source, tab, target = text.partition("\t")
        if tab:
            return self._item("TEXT", source, target, net)
        ((tokens, best),) = Translator(net, self.domain).lines([source], "TEXT")
        return Item(source, best.tokens, context=tokens)

    def _item(self, name: str, source: str, target: str, net: Autoregressor) -> Item:
        context = Translator(net, self.domain).encode(source, name)
        try:
            tokens = self.domain.encode(target.strip())
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        longest = net.spec.length
        if len(tokens) > longest:
            raise UserError(
                f"{name}: the target has {len(tokens)} tokens, but the network takes {longest}; "
                "split the sentence, or train with a larger data.length"
            )
        return Item(name, tokens, context=context)

    def pieces(self, tokens: Tensor) -> list[str]:
        found = []
        ends = (tokens == self.domain.eos_id).nonzero().flatten() + 1
        for sentence in tokens.tensor_split(ends):  # a split is scored as sentences in a row
            inside = self.domain.until_end(sentence)
            found += pieces(inside, self.domain.target_tokenizer.decode)
            found += ["<end>\n"] * (len(sentence) - len(inside))
        return found

    def context_pieces(self, context: Tensor) -> list[str]:
        return self.domain.pieces(context, self.domain.source)

    def surprise(self, scored: ItemScores, most: int | None = None) -> str:
        coloured = super().surprise(scored, most)
        context = scored.item.context
        source = "" if context is None else self.domain.source.decode(context)
        return fragment("pair.html", source=source, coloured=coloured)

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


def tabbed(path: str) -> tuple[list[str], list[str]]:
    """Sources and targets of a file whose lines are SOURCE, tab, TARGET; "-" is the standard input."""
    sources, targets = [], []
    for number, line in enumerate(text_of(path).removesuffix("\n").split("\n"), start=1):
        source, tab, target = line.partition("\t")
        if not (tab and source.strip() and target.strip()):
            raise UserError(
                f"FILE: line {number} of '{path}' is not SOURCE, tab, TARGET; "
                "give such lines, or two files"
            )
        sources.append(source)
        targets.append(target)
    return sources, targets
