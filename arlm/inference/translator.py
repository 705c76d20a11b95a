"""Translator: sentences in, translations out, in the order given; many sentences and beams in one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of
from arlm.domains import TranslationDomain
from arlm.errors import UserError
from arlm.sampling import beam_search, generate, row_seeds
from arlm.sampling.processors import Rule


class Translation(NamedTuple):
    """One translation of a sentence."""

    text: str
    tokens: Tensor  # (T,) int64, the end among them
    log_prob: float  # nats of the whole
    score: float  # log_prob over the length penalty; log_prob itself where it was drawn


@dataclass(frozen=True)
class Translator:
    """Translates by beam search, or draws translations by rules.

    Args:
        net: the network.
        domain: of its sentences.
        beam: beginnings that are kept; 1 is greedy.
        best: translations of each sentence.
        alpha: of the length penalty.
        rules: if given, translations are drawn instead of searched for.
        seed: of the draw.
        batch_tokens: most tokens of the sources in a batch, padding included.
    """

    net: Autoregressor
    domain: TranslationDomain
    beam: int = 5
    best: int = 1
    alpha: float = 1.0
    rules: tuple[Rule, ...] | None = None
    seed: int = 0
    batch_tokens: int = 2048

    def encode(self, line: str, named: str) -> Tensor:
        """A source sentence as tokens (S,); `named` stands for it in errors."""
        if not line.strip():
            raise UserError(f"{named}: it is empty; leave it out")
        try:
            tokens = self.domain.encode_source(line.strip())
        except UserError as error:
            raise UserError(f"{named}: {error}") from None
        context = self.net.spec.context
        longest = 0 if context is None else context.length
        if not 0 < len(tokens) <= longest:
            raise UserError(
                f"{named}: it has {len(tokens)} tokens, but the network takes 1 to {longest}; "
                "split the sentence, or train with a larger data.length"
            )
        return tokens

    def lines(
        self, lines: Sequence[str], named: str, progress: Callable[[int], object] | None = None
    ) -> list[tuple[Tensor, Translation]]:
        """Each line's tokens and its best translation; `named` stands for a line in errors."""
        sources = [self.encode(line, named) for line in lines]
        found = self(sources, progress)
        return [(source, each[0]) for source, each in zip(sources, found, strict=True)]

    def __call__(
        self,
        sources: Sequence[Tensor],
        progress: Callable[[int], object] | None = None,
        first: int = 0,
    ) -> list[list[Translation]]:
        """The best translations of each source (S,), in its place.

        Args:
            first: how many sentences came before these, for the seeds of the draw.
            progress: called with the number of sentences that are done since the last call.
        """
        order = sorted(range(len(sources)), key=lambda i: (len(sources[i]), i))
        found: list[list[Translation]] = [[] for _ in sources]
        while order:
            longest = len(sources[order[-1]])
            rows = order[-max(1, self.batch_tokens // longest) :]
            del order[-len(rows) :]
            context = self.domain.contexts([sources[i] for i in rows]).to(device_of(self.net))
            for i, translations in zip(rows, self._batch(context, rows, first), strict=True):
                found[i] = translations
            if progress:
                progress(len(rows))
        return found

    def _batch(self, context: Tensor, rows: Sequence[int], first: int) -> list[list[Translation]]:
        length = min(self.net.spec.length, 2 * context.shape[1] + 20)
        if self.rules is None:
            beams = beam_search(
                *(self.net, len(context), length),
                beam=self.beam,
                best=self.best,
                alpha=self.alpha,
                context=context,
            )
            tokens, log_prob, score = beams
        else:
            seeds = []
            for i in rows:
                seeds += row_seeds(self.seed, self.best, (first + i) * self.best)
            several = context.repeat_interleave(self.best, 0)
            drawn = generate(self.net, seeds, length, rules=self.rules, context=several)
            tokens = drawn.tokens.view(len(rows), self.best, -1)
            log_prob = score = drawn.log_prob.sum(1).view(len(rows), -1)
        return [
            [
                Translation(self.domain.decode(t), self._whole(t), float(p), float(s))
                for t, p, s in zip(*row, strict=True)
                if s > -torch.inf
            ]
            for row in zip(tokens.cpu(), log_prob.cpu(), score.cpu(), strict=True)
        ]

    def _whole(self, tokens: Tensor) -> Tensor:
        """Up to the first end, with it."""
        return tokens[: len(self.domain.until_end(tokens)) + 1]
