"""NeighbourView: the nearest words of frequent words, by the cosine of their vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.domains.neighbour import NeighbourDomain
from arlm.reports.shown import Drawn, Shown
from arlm.reports.view import View
from arlm.sampling import Sampler

if TYPE_CHECKING:
    from arlm.data.folders import Split

NEAREST = 5
OFTEN = 20_000  # tokens of the split whose most frequent words are shown


class NeighbourView(View[NeighbourDomain]):
    """Word vectors."""

    verbs = frozenset()
    purpose = "holds word vectors"
    heading = "The nearest words of frequent words"

    def show(self, tokens: Tensor) -> Shown:
        return Shown(tokens.numel(), texts=[self.domain.decode(row) for row in tokens])

    def pieces(self, tokens: Tensor) -> list[str]:
        return [f"{self.domain.decode(token[None]).strip()} " for token in tokens]

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
        """The nearest words of `n` words: of the split's frequent ones, those that follow the most frequent 50."""
        counts = data.tokens(split)[:OFTEN].bincount(minlength=net.spec.vocab_size)
        chosen = counts.argsort(descending=True, stable=True)[50 : 50 + n]
        found = nearest(net, chosen, NEAREST)

        def shown() -> Shown:
            names = [
                self.pieces(torch.cat([c[None], row])) for c, row in zip(chosen, found, strict=True)
            ]
            return Shown(len(chosen), texts=[f"{first}: {''.join(rest)}" for first, *rest in names])

        return Drawn(len(chosen), shown)


def nearest(net: Any, tokens: Tensor, count: int) -> Tensor:
    """The `count` tokens whose vectors have the largest cosine with those of `tokens` (N,): (N, count)."""
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(net.embed.weight.float(), dim=-1).cpu()
    cosines = vectors[tokens] @ vectors.T
    cosines.scatter_(1, tokens[:, None], -2.0)  # itself
    return cosines.topk(min(count, len(vectors) - 1), dim=1).indices
