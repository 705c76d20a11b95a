"""Translator: translates sentences in batches and returns the translations in the order of the sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of
from arlm.domains import PairDomain
from arlm.errors import UserError
from arlm.inference.beam_tree import BeamTree
from arlm.inference.capacity import check_capacity
from arlm.sampling import Beams, BeamStep, beam_search, generate, row_seeds
from arlm.sampling.processors import LogitsProcessor

BEAM = 5  # width of a beam by default


class Source(NamedTuple):
    """What is translated: a sentence, or an object of another kind, such as a picture."""

    name: str  # for error messages
    text: str  # how output names it: the sentence itself, or a file's name
    native: Any  # what the domain encodes


class Translation(NamedTuple):
    """One translation of a sentence."""

    text: str
    tokens: Tensor  # (T,) int64, the end token included unless the length limit cut it
    log_prob: float  # nats, the sum over its tokens
    score: float  # log_prob divided by the length normalisation; log_prob itself if it was sampled


@dataclass(frozen=True)
class Translator:
    """Translates by beam search, or by sampling with logits processors.

    A translation has at most twice as many tokens as its source and 20 more.

    Args:
        net: the network.
        domain: encodes the sources and decodes the texts.
        beam: width of the beam; 1 is greedy search.
        n_best: translations of each sentence.
        length_penalty: exponent of the length normalisation; larger favours longer translations.
        processors: if given, translations are sampled with these instead of searched for.
        seed: of the samples.
        batch_tokens: largest number of source tokens in a batch, padding included.
    """

    net: Autoregressor
    domain: PairDomain
    beam: int = BEAM
    n_best: int = 1
    length_penalty: float = 1.0
    processors: tuple[LogitsProcessor, ...] | None = None
    seed: int = 0
    batch_tokens: int = 2048

    def __post_init__(self) -> None:
        rows, length = self._rows, self.net.spec.length
        option = "--beam" if self.processors is None else "--n-best"
        check_capacity(self.net, rows, length, option, rows)

    @property
    def _rows(self) -> int:
        """Rows of the network for each sentence."""
        return self.beam if self.processors is None else self.n_best

    def encode(self, native: Any, name: str) -> Tensor:
        """A source as tokens (S,), of text without surrounding white space; errors call it `name`."""
        native = native.strip() if isinstance(native, str) else native
        if isinstance(native, str) and not native:
            raise UserError(f"{name}: it is empty; leave it out")
        try:
            tokens = self.domain.encode_source(native)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        context = self.net.spec.context
        longest = 0 if context is None else context.length
        if not 0 < len(tokens) <= longest:
            raise UserError(
                f"{name}: it has {len(tokens)} tokens, but the network takes 1 to {longest}; "
                "split the sentence, or train with a larger data.length"
            )
        return tokens

    def lines(
        self, lines: Sequence[Any], name: str, progress: Callable[[int], object] | None = None
    ) -> list[tuple[Tensor, Translation]]:
        """Tokens of each source, with its best translation; errors call a source `name`."""
        sources = [self.encode(line, name) for line in lines]
        found = self(sources, progress)
        return [(source, each[0]) for source, each in zip(sources, found, strict=True)]

    def __call__(
        self,
        sources: Sequence[Tensor],
        progress: Callable[[int], object] | None = None,
        first: int = 0,
    ) -> list[list[Translation]]:
        """The best translations of each source (S,), in the order of the sources.

        Args:
            sources: from `encode`.
            progress: called with the number of sentences done since the last call.
            first: how many sentences came before these, for the seeds of the samples.
        """
        order = sorted(range(len(sources)), key=lambda i: (len(sources[i]), i))
        found: list[list[Translation]] = [[] for _ in sources]
        while order:
            longest = len(sources[order[-1]])
            # A wider beam than the default takes fewer sentences at once, so that memory stays as it is.
            tokens = self.batch_tokens * BEAM // max(BEAM, self._rows)
            rows = order[-max(1, tokens // longest) :]
            del order[-len(rows) :]
            batch = [sources[i] for i in rows]
            for i, translations in zip(rows, self._batch(batch, rows, first), strict=True):
                found[i] = translations
            if progress:
                progress(len(rows))
        return found

    def tree(self, source: Tensor) -> BeamTree:
        """The prefixes and translations of the search for a source (S,), which is searched by itself."""
        tree = BeamTree()
        self._search([source], tree.observe)
        return tree

    def _search(
        self, sources: list[Tensor], observe: Callable[[BeamStep], object] | None = None
    ) -> Beams:
        lengths = self._lengths(sources)
        return beam_search(
            *(self.net, len(sources), max(lengths)),
            beam=self.beam,
            n_best=self.n_best,
            length_penalty=self.length_penalty,
            context=self._context(sources),
            lengths=lengths,
            observe=observe,
        )

    def _context(self, sources: list[Tensor]) -> Tensor:
        return self.domain.contexts(sources).to(device_of(self.net))

    def _lengths(self, sources: list[Tensor]) -> list[int]:
        """Most tokens of the translation of each source."""
        return [min(self.net.spec.length, 2 * len(source) + 20) for source in sources]

    def _batch(
        self, sources: list[Tensor], rows: Sequence[int], first: int
    ) -> list[list[Translation]]:
        lengths = self._lengths(sources)
        if self.processors is None:
            tokens, log_prob, score, *_ = self._search(sources)
        else:
            seeds, limits = [], []
            for i, length in zip(rows, lengths, strict=True):
                seeds += row_seeds(self.seed, self.n_best, (first + i) * self.n_best)
                limits += [length] * self.n_best
            sampled = generate(
                *(self.net, seeds, max(lengths)),
                processors=self.processors,
                context=self._context(sources).repeat_interleave(self.n_best, 0),
                lengths=limits,
            )
            tokens = sampled.tokens.view(len(rows), self.n_best, -1)
            log_prob = score = sampled.log_prob.sum(1).view(len(rows), -1)
        return [
            [
                Translation(self.domain.decode(t), self._whole(t, length), float(p), float(s))
                for t, p, s in zip(*row, strict=True)
                if s > -torch.inf
            ]
            for length, *row in zip(lengths, tokens.cpu(), log_prob.cpu(), score.cpu(), strict=True)
        ]

    def _whole(self, tokens: Tensor, length: int) -> Tensor:
        """The first `length` tokens of a translation, up to and including its first end token."""
        return tokens[: min(length, len(self.domain.until_end(tokens)) + 1)]
