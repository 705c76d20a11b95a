"""View: how the objects, samples, surprise and quality figures of one domain are read and presented.

A domain names its view by class path, since `arlm.reports` imports domains and not the other way round. With
a View of its own, a new domain is sampled, scored, evaluated and compared like the others. A view must write
`show`; `read` makes `arlm score` work, and the other methods have a default.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.domains import Domain
from arlm.errors import UserError
from arlm.inference.fillings import Filled, FillOptions
from arlm.inference.items import Item, ItemScores
from arlm.inference.translator import Source, Translation
from arlm.reports.shown import Drawn, Shown
from arlm.reports.tokens import by_difference, by_surprise
from arlm.sampling import Sampler, class_labels, row_seeds

if TYPE_CHECKING:
    from arlm.data.folders import Split
    from arlm.data.module import TokenDataModule

D = TypeVar("D", bound=Domain)
SHOWN_TOKENS = 1000
# Options of `arlm sample` that apply to samples which are printed, and to those which are written to files.
PRINTED = (
    *("prompt", "prompt_file", "max_new_tokens", "json", "stream", "stop", "beam", "tree", "top"),
    *("regex", "json_schema", "grammar", "draft", "draft_tokens", "best_of", "penalty_alpha"),
    "watermark",  # it is detected in texts only
)
WRITTEN = ("complete", "gif", "sweep")


class View(ABC, Generic[D]):
    """Presentation of one domain. A subclass writes `show`.

    Args:
        domain: decodes the tokens.
    """

    verbs: ClassVar[frozenset[str]]  # commands that apply, besides evaluate and compare
    purpose: ClassVar[str]  # what a checkpoint does, for messages: "draws images"
    # Options of `arlm sample` that do not apply, and why; "" for one of PRINTED or WRITTEN that does apply.
    refusals: ClassVar[dict[str, str]] = {}
    default_out: ClassVar[str | None] = None  # file for samples; None prints them
    default_n: ClassVar[int] = 1  # samples
    suffixes: ClassVar[tuple[str, ...]] = ()  # of files of samples; empty for any
    heading: ClassVar[str] = "Samples from the same seeds"  # in a report
    simple_titles: ClassVar[frozenset[str]] = (
        frozenset()
    )  # of `quality`, with figures of simple models
    line: ClassVar[str] = "source"  # what a line of a file for `arlm translate` has

    def __init__(self, domain: D) -> None:
        self.domain = domain

    @property
    def shown_tokens(self) -> int:
        """Tokens whose surprise a report shows."""
        return SHOWN_TOKENS

    @property
    def columns(self) -> int | None:
        """Tokens side by side, for those that are laid out in rows, such as pixels."""
        return None

    @property
    def context_columns(self) -> int | None:
        """Tokens of a context side by side, for those that are laid out in rows."""
        return None

    @abstractmethod
    def show(self, tokens: Tensor) -> Shown:
        """Present rows of tokens (N, T)."""

    def prompt(self, text: str, field: str) -> Tensor:
        """The tokens (P,) of a text to continue, none for an empty one; errors call it `field`."""
        if text:
            raise UserError(f"{field}: the checkpoint {self.purpose}; omit it")
        return torch.empty(0, dtype=torch.long)

    def forced(self, options: dict[str, Any]) -> Tensor | None:
        """Forced tokens (1, T) from the options of `arlm sample`, -1 where free; None if there are none."""
        if options.get("complete"):
            raise UserError(
                f"--complete: the checkpoint {self.purpose}, which it does not complete; omit it"
            )
        return None

    def write(
        self,
        drawn: dict[str, Tensor],
        out: Path,
        columns: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> list[Path]:
        """Write samples (N, T) by name (a single entry, except in a sweep, whose names become part of the files').

        Args:
            drawn: the samples.
            out: the file.
            columns: of a grid.
            options: of `arlm sample`, where it draws the samples.

        Returns: the paths.
        """
        paths = []
        for name, tokens in drawn.items():
            ending = f"-{name.replace(' ', '-')}" if len(drawn) > 1 else ""
            paths += self.show(tokens).save(Path(f"{out.with_suffix('')}{ending}"), columns)
        return paths

    def animate(self, tokens: Tensor, given: Tensor | None, out: Path) -> Path:
        """Write an animation of how rows (N, T) were drawn; `given` (N, T) were there from the start."""
        raise UserError(f"--gif: {out} given, but the checkpoint {self.purpose}; omit it")

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
    ) -> Drawn:
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
        return Drawn(tokens.numel(), lambda: self.show(tokens))

    def read(self, path: str) -> Tensor:
        """Tokens (T,) of a file of this domain; "-" is the standard input."""
        raise UserError(f"FILE: the checkpoint {self.purpose}, of which no file can be read")

    def to_score(
        self, files: Sequence[str], options: dict[str, Any], net: Autoregressor
    ) -> list[Item]:
        """What `arlm score` scores: by default each file, with the class of `--label`.

        Args:
            files: paths; "-" is the standard input.
            options: of the verb: prompt, label.
            net: the network.
        """
        if options["prompt"]:
            raise UserError(f"--prompt: the checkpoint {self.purpose}; omit it")
        labels = class_labels(net, options["label"], len(files))
        return [
            Item(path, self.read(path), context=None if labels is None else labels[index].cpu())
            for index, path in enumerate(files)
        ]

    def sources(self, files: Sequence[str]) -> Iterator[Source]:
        """What `arlm translate` translates: the sources in each file; "-" is the standard input."""
        raise UserError(f"FILE: the checkpoint {self.purpose}, which has no sources")

    def fill(
        self,
        net: Autoregressor,
        text: str,
        options: FillOptions,
        progress: Callable[[int], object] | None = None,
    ) -> Filled:
        """The likeliest fillings of a text whose gaps are marked by [MASK], for `arlm fill`."""
        raise UserError(f"TEXT: the checkpoint {self.purpose}, whose gaps are not filled")

    def attention_map(
        self, net: Autoregressor, translated: Sequence[tuple[Tensor, Translation]]
    ) -> bytes | None:
        """A picture (PNG) of what each part of a translation reads of its source (S,); None without attention."""
        return None

    def to_attend(self, text: str, net: Autoregressor) -> Item:
        """What `arlm attention` reads: a text, or the path of a file."""
        raise UserError(f"TEXT: the checkpoint {self.purpose}, whose attention is not shown")

    def pieces(self, tokens: Tensor) -> list[str]:
        """The text of each token (N,); by default its number."""
        return [f"{token} " for token in tokens.tolist()]

    def context_pieces(self, context: Tensor) -> list[str]:
        """The text of each token (S,) of a context; by default its number."""
        return [str(token) for token in context.tolist()]

    def alternatives(self, scored: ItemScores) -> list[list[str]]:
        """The texts of the likeliest tokens at each position; empty if there are none."""
        if not scored.top.shape[1]:
            return []
        texts = {int(token): self.pieces(token[None])[0] for token in scored.top.unique()}
        return [[texts[token] for token in row] for row in scored.top.tolist()]

    def surprise(self, scored: ItemScores, most: int | None = None) -> str:
        """An item as HTML, coloured by its surprise; of a long one, the first `most` tokens."""
        shown = scored.cut(most or self.shown_tokens)
        left = len(scored.tokens) - len(shown.tokens)
        return by_surprise(shown, self.pieces(shown.tokens), self.alternatives(shown), left)

    def difference(self, a: ItemScores, b: ItemScores, names: tuple[str, str]) -> str:
        """The same tokens as HTML, coloured by which of two models gave them more probability."""
        left = len(a.tokens)
        a, b = a.cut(self.shown_tokens), b.cut(self.shown_tokens)
        own = self.pieces(a.tokens)
        return by_difference(a.nats, b.nats, own, names, left - len(own))

    def write_surprise(self, scored: Sequence[ItemScores], out: Path) -> Path:
        """Write a picture of the items' surprise."""
        raise UserError(f"--out: the checkpoint {self.purpose}; give --html for a page")

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

    def baseline_quality(
        self, net: Autoregressor, data: TokenDataModule, split: Split
    ) -> dict[str, dict[str, Any]]:
        """Such figures of a simple model, for `arlm evaluate --baselines`."""
        return {}

    def correct(
        self,
        net: Autoregressor,
        data: TokenDataModule,
        split: Split,
        progress: Callable[[int], object] | None = None,
    ) -> Tensor | None:
        """Whether each example of a split is classified right, (N,) bool, for McNemar's test; None without classes."""
        return None

    def items(self, data: TokenDataModule, split: Split) -> int:
        """Number of items that `quality` processes, for a progress bar; 0 if it has none."""
        return 0

    def check_verb(self, verb: str, path: str) -> None:
        """Refuse a command that does not apply to the domain."""
        if verb not in self.verbs:
            *others, last = (f"`arlm {name}`" for name in sorted({*self.verbs, "evaluate"}))
            mend = f"{', '.join(others)} or {last}" if others else last
            raise UserError(
                f"checkpoint: '{path}' {self.purpose}, which `arlm {verb}` does not do; use {mend}"
            )

    def check_options(self, options: dict[str, Any]) -> None:
        """Refuse options of `arlm sample` that do not apply to the domain."""
        others = PRINTED if self.default_out else WRITTEN
        reasons = dict.fromkeys(others, f"the checkpoint {self.purpose}; omit it") | self.refusals
        for name, reason in reasons.items():
            value = options.get(name)
            if reason and value not in (None, "", []) and value is not False:
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option}: {value!r} given, but {reason}")


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
