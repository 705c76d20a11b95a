"""PairView: what the views of domains share whose target is a text, whatever the source is."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from arlm.core import Autoregressor
from arlm.data.pairs import aligned
from arlm.data.text_files import named_lines
from arlm.domains import PairDomain
from arlm.errors import UserError
from arlm.inference.items import Item
from arlm.inference.translator import Source, Translation, Translator
from arlm.reports.attention_map import attention_maps
from arlm.reports.shown import Drawn, Shown
from arlm.reports.text_view import text_of
from arlm.reports.tokens import pieces
from arlm.reports.view import View
from arlm.sampling import Sampler

if TYPE_CHECKING:
    from arlm.data.folders import Split

P = TypeVar("P", bound=PairDomain)
MAPS = 4  # number of sources whose attention a report shows


class PairView(View[P]):
    """Texts with their sources, which are lines of files. A subclass writes `source_of`."""

    verbs = frozenset({"translate", "score", "attention"})
    output = "translation"  # what a target is called

    @abstractmethod
    def source_of(self, text: str, name: str) -> Any:
        """The source that a line of a file, or a text of the command line, stands for; errors call it `name`."""

    def target_of(self, text: str) -> Any:
        """The target that a text stands for, as the domain encodes it: the text itself, without white space around it."""
        return text.strip()

    def sources(self, files: Sequence[str]) -> Iterator[Source]:
        for file in files:
            if file != "-" and not os.path.lexists(file):
                raise UserError(
                    f"FILE: {file!r} does not exist; give a file with one {self.line} per line, or pipe lines in: "
                    "echo TEXT | arlm translate RUN"
                )
            for name, line in named_lines(file):
                text = line.strip()
                yield Source(name, text, self.source_of(text, name))

    def attention_map(
        self, net: Autoregressor, translated: Sequence[tuple[Tensor, Translation]]
    ) -> bytes | None:
        def target_names(tokens: Tensor) -> list[str]:
            return self.domain.pieces(tokens, self.domain.target_tokenizer)

        return attention_maps(net, translated, self.context_pieces, target_names)

    def compared(
        self,
        net: Autoregressor,
        tokens: int,
        sources: Sequence[Any],
        references: Sequence[str],
        found: Sequence[tuple[Tensor, Translation]],
    ) -> Shown:
        """Sources with their references, and with the texts that a network wrote, of `tokens` tokens in all."""
        texts = [
            f"{source}\n= {reference}\n> {best.text}"
            for source, reference, (_, best) in zip(sources, references, found, strict=True)
        ]
        picture = self.attention_map(net, found[:MAPS])
        return Shown(
            tokens, texts=texts, pictures={} if picture is None else {"attention": picture}
        )

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

    def to_score(
        self, files: Sequence[str], options: dict[str, Any], net: Autoregressor
    ) -> list[Item]:
        """Pairs: two files that belong to each other, or one with a tab in each line."""
        for name in ("prompt", "label"):
            if options[name] not in (None, ""):
                raise UserError(f"--{name}: the checkpoint {self.purpose}; give pairs without it")
        if len(files) == 2:
            sources, targets = self.aligned(*files)
        elif len(files) == 1:
            sources, targets = tabbed(files[0])
        else:
            raise UserError(
                f"FILE: {len(files)} files given; give SOURCE and TARGET, which belong to each other, or one file "
                "with a tab in each line"
            )
        pairs = enumerate(zip(sources, targets, strict=True), start=1)
        names = {number: f"{files[-1]}:{number}" for number in range(1, len(sources) + 1)}
        return [
            self.item(names[i], self.source_of(source, names[i]), target, net)
            for i, (source, target) in pairs
        ]

    def aligned(self, source: str, target: str) -> tuple[Sequence[str], Sequence[str]]:
        """Sources and targets of two files, by default line by line."""
        return aligned(Path(source), Path(target), "FILE")

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
            tokens = self.domain.encode(self.target_of(target))
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
