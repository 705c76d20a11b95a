"""PairView: what the views of domains share whose target is a text, whatever the source is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from arlm.core import Autoregressor
from arlm.domains import PairDomain
from arlm.errors import UserError
from arlm.inference.items import Item
from arlm.inference.translator import Source, Translation, Translator
from arlm.reports.shown import Drawn, Shown
from arlm.reports.text_view import text_of
from arlm.reports.tokens import pieces
from arlm.reports.view import View
from arlm.sampling import Sampler

if TYPE_CHECKING:
    from arlm.data.folders import Split

P = TypeVar("P", bound=PairDomain)


class PairView(View[P]):
    """Texts with their sources. A subclass writes `sources`, `compared`, `source_of` and `attention_map`."""

    verbs = frozenset({"translate", "score", "attention"})
    output = "translation"  # what a target is called

    @abstractmethod
    def sources(self, files: Sequence[str]) -> Iterator[Source]: ...

    @abstractmethod
    def source_of(self, text: str, name: str) -> Any:
        """The source that a text of the command line or of a table names; errors call it `name`."""

    @abstractmethod
    def compared(
        self,
        net: Autoregressor,
        tokens: int,
        sources: Sequence[Any],
        references: Sequence[str],
        found: Sequence[tuple[Tensor, Translation]],
    ) -> Shown:
        """Sources with their references, and with the texts that a network wrote, `tokens` in all."""

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
        """Texts for the split's first `n` sources by beam search, shown with attention maps."""
        sources, references = (side[:n] for side in data.sentences(split))
        found = Translator(net, self.domain, beam=beam).lines(sources, f"data.{split}")
        tokens = sum(len(best.tokens) for _, best in found)
        return Drawn(tokens, lambda: self.compared(net, tokens, sources, references, found))

    def check_scored(self, options: dict[str, Any]) -> None:
        """Refuse options of `arlm score` that do not apply."""
        for name in ("prompt", "label"):
            if options[name] not in (None, ""):
                raise UserError(f"--{name}: the checkpoint {self.purpose}; give pairs without it")

    def to_attend(self, text: str, net: Autoregressor) -> Item:
        """A source with the text that the network writes for it, or with the one that follows a tab."""
        named, tab, target = text.partition("\t")
        source = self.source_of(named, "TEXT")
        if tab:
            return self.item("TEXT", source, target, net)
        ((tokens, best),) = Translator(net, self.domain).lines([source], "TEXT")
        return Item(named, best.tokens, context=tokens)

    def item(self, name: str, source: Any, target: str, net: Autoregressor) -> Item:
        """A pair to score; errors call it `name`."""
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

    def quality(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        beam: int,
        length_penalty: float,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """BLEU, chrF and exact matches of a split's texts."""
        from arlm.evaluation.bleu import score_translations  # sacrebleu takes a while to import

        translator = Translator(net, self.domain, beam=beam, length_penalty=length_penalty)
        pairs = data.sentences(split)
        found = translator.lines(pairs.source, "data", progress)
        scores = score_translations([best.text for _, best in found], pairs.target)
        return {f"{self.output}s, beam {beam}": scores._asdict()}

    def items(self, data: Any, split: Split) -> int:
        return len(data.sentences(split).source)


def tabbed(path: str, source: str = "SOURCE") -> tuple[list[str], list[str]]:
    """Sources and targets of a file whose lines are SOURCE, tab, TARGET; "-" is the standard input."""
    sources, targets = [], []
    for number, line in enumerate(text_of(path).removesuffix("\n").split("\n"), start=1):
        given, tab, target = line.partition("\t")
        if not (tab and given.strip() and target.strip()):
            raise UserError(
                f"FILE: line {number} of '{path}' is not {source}, tab, TARGET; "
                "give such lines, or two files"
            )
        sources.append(given)
        targets.append(target)
    return sources, targets
