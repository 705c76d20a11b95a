"""Maximum likelihood: nats per scored token, plus the network's penalties; labels may be smoothed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from arlm.core import Autoregressor, Batch
from arlm.evaluation.likelihood import figures
from arlm.evaluation.weights import scored_weights
from arlm.inference.scorer import BatchScorer
from arlm.training.objectives.base import Objective, Terms
from arlm.training.objectives.smoothing import smoothed_score


class Likelihood(Objective):
    """Nats per scored token, by its weight, plus the network's penalties. Figures: nll, ppl and bits per unit.

    Rows that continue those of the batch before are scored with its state, without gradients: truncated
    back-propagation through time.

    Args:
        label_smoothing: share of the target probability that is spread evenly over all tokens, in [0, 1);
            it affects gradients only, never the reported figures.
    """

    monitor = "nll"
    sums: ClassVar[tuple[str, ...]] = ("nats", "units")

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def prepare(self, net: Autoregressor, compile: bool = False) -> None:
        score = smoothed_score(net, self.label_smoothing)
        self._training_scorer = BatchScorer(net, compile, score)
        self._scorer = BatchScorer(net)

    def loss(self, net: Autoregressor, batch: Batch) -> Terms:
        scores = (self._training_scorer if net.training else self._scorer)(batch)
        cost, count = -scores.log_prob, batch.scored.sum()
        if scores.auxiliary is not None:
            cost = cost + scores.auxiliary
        cost = cost.where(batch.scored, 0)
        if batch.weights is not None:
            cost = cost * batch.weights
            count = scored_weights(batch).sum()
        total = cost.sum()
        return Terms(total, count, likelihood_sums(scores.log_prob, batch))

    def figures(self, sums: Mapping[str, float], unit: str) -> dict[str, float]:
        return figures(sums["nats"], sums["count"], sums["units"], unit)

    def start_evaluation(self) -> None:
        self._scorer.chunk_state = None

    def chunk_state(self) -> list[Tensor]:
        return self._training_scorer.saved()

    def restore(self, saved: list[Tensor]) -> None:
        self._training_scorer.restore(saved)


def likelihood_sums(log_prob: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Nats and units of the scored tokens of a batch in float64, by their weights, given its log_prob (B, T)."""
    weights = scored_weights(batch)
    nats = -log_prob.detach().double().where(batch.scored, 0) * weights
    return {"nats": nats.sum(), "units": (batch.units.double() * weights).sum()}
