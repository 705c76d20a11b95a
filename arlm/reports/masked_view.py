"""MaskedView: text with its masks filled, and how often masked tokens are guessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of
from arlm.data.dataset import Rows
from arlm.data.folders import Split
from arlm.domains import MaskedDomain
from arlm.evaluation.proportion import proportion
from arlm.inference.fillings import Filled, FillOptions, fill_masked, text_with_gaps
from arlm.inference.guesses import bag_of_words, guesses
from arlm.reports.shown import Drawn, Shown
from arlm.reports.tokens import pieces
from arlm.reports.view import View
from arlm.sampling import Sampler, row_seeds
from arlm.sampling.unmask import unmask

BAG_OF_WORDS = "labels of pairs, bag of words"


class MaskedView(View[MaskedDomain]):
    """Masked text, and its fillings."""

    verbs = frozenset({"fill"})
    purpose = "fills gaps of a text"
    heading = "Masked text, filled"
    simple_titles = frozenset({BAG_OF_WORDS})

    def show(self, tokens: Tensor) -> Shown:
        return Shown(tokens.numel(), texts=[self.domain.decode(row) for row in tokens])

    def pieces(self, tokens: Tensor) -> list[str]:
        return pieces(tokens, self.domain.decode)

    def fill(
        self,
        net: Autoregressor,
        text: str,
        options: FillOptions,
        progress: Callable[[int], object] | None = None,
    ) -> Filled:
        text_with_gaps(self.domain.tokenizer, text)
        context, mask = self.domain.encode(text), self.domain.mask_id
        gaps = (context == mask).nonzero().flatten()[int(self.domain.pairs) :]  # not the label
        return fill_masked(net, context, gaps, mask, options)

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
        """The first rows of a split with masks, and with the masks filled in random order, one in each pass."""
        dataset = data.dataset(split)
        batch = dataset[Rows(0, torch.arange(min(n, len(dataset))))]
        context = batch.context.to(device_of(net))
        found = unmask(net, context, self.domain.mask_id, row_seeds(seed, len(context)))
        rows = zip(batch.tokens, batch.context, found.tokens.cpu(), strict=True)
        return Drawn(
            int((found.passes >= 0).sum()), lambda: Shown(0, texts=[self._three(*r) for r in rows])
        )

    def quality(
        self,
        net: Autoregressor,
        data: Any,
        split: Split,
        beam: int,
        length_penalty: float,
        progress: Callable[[int], object] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """The accuracy of masked tokens and, with pairs, of their labels, beside that of a bag of words."""
        found = guesses(net, data.loader(split), self.domain)
        figures = {"masked tokens": accuracy(*found.tokens)}
        if self.domain.pairs:
            figures["labels of pairs"] = accuracy(*found.labels)
            figures[BAG_OF_WORDS] = accuracy(*bag_of_words(data, split))
        return figures

    def baseline_quality(
        self, net: Autoregressor, data: Any, split: Split
    ) -> dict[str, dict[str, Any]]:
        return {"masked tokens": accuracy(*guesses(net, data.loader(split), self.domain).tokens)}

    def _three(self, text: Tensor, masked: Tensor, found: Tensor) -> str:
        """A row's masked form, its filling and its text, below one another."""
        return "\n".join(
            f"{sign} {self.domain.decode(row)}"
            for sign, row in (("?", masked), (">", found), ("=", text))
        )


def accuracy(right: int, count: int) -> dict[str, Any]:
    """An accuracy, with its interval of 95 %."""
    return {"accuracy": proportion(right, count)}
