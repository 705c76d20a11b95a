"""Fit a network by counting: one pass over the training split, without optimizer or backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from arlm.core import Autoregressor, Batch
from arlm.errors import UserError
from arlm.training.objectives.base import Terms
from arlm.training.objectives.likelihood import Likelihood


@runtime_checkable
class Counts(Protocol):
    """A network that is fitted by counting, such as `arlm.models.ngram`."""

    def count(self, tokens: Tensor, scored: Tensor | None = None) -> None:
        """Add rows (B, T) int64; the tokens that are not `scored` (B, T) are read as history only."""


class Counting(Likelihood):
    """Counts each training batch; validation and test report the likelihood.

    The data module gives every training token once (`TokenDataModule.single_pass`), whatever the batches of
    other objectives are. Training batches have no figures: to score them while they are counted says little.
    """

    sums = (*Likelihood.sums, "evaluated")
    optimizes = False

    def __init__(self) -> None:
        super().__init__()

    def prepare(self, net: Autoregressor, compile: bool = False) -> None:
        if not isinstance(net, Counts):
            raise UserError(
                f"model.objective: Counting cannot fit {type(net).__name__}, which is trained by gradients; "
                "choose arlm.training.objectives.Likelihood, or a network such as arlm.models.ngram"
            )
        super().prepare(net, compile)

    def loss(self, net: Any, batch: Batch) -> Terms:
        tokens = batch.scored.sum()
        if not net.training:
            terms = super().loss(net, batch)
            return Terms(terms.sum, terms.count, dict(terms.figures) | {"evaluated": tokens})
        net.count(batch.tokens, batch.scored)
        nothing = batch.units.new_zeros(())
        return Terms(nothing, tokens, dict.fromkeys(self.sums, nothing))

    def figures(self, sums: Mapping[str, float], unit: str) -> dict[str, float]:
        return super().figures(sums, unit) if sums["evaluated"] else {}
