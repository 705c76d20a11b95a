"""The likelihood of classes, with the accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from arlm.core import Autoregressor, Batch, token_log_prob
from arlm.evaluation.likelihood import figures
from arlm.evaluation.weights import scored_weights
from arlm.training.objectives.base import Objective, Terms


@runtime_checkable
class GivesLogits(Protocol):
    """A network that returns its logits and its penalties from one pass, such as `arlm.adapters.Classifier`."""

    def logits_and_auxiliary(
        self, tokens: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, V), and what training adds to the loss, (B, T) or None."""


class Classification(Objective):
    """Nats of the class of each row, by its weight, plus what the network adds to the loss (`Classifier.lm_weight`).

    Figures: nll, the same in bits, and the accuracy, the share of rows whose class is the likeliest one. Any network can be trained
    with it; the tokens that are scored are the classes.
    """

    monitor = "nll"
    sums = ("nats", "correct")

    def prepare(self, net: Autoregressor, compile: bool = False) -> None:
        wrap: Callable = torch.compile if compile else lambda function: function
        self._both = isinstance(net, GivesLogits)
        self._logits: Any = net.logits_and_auxiliary if self._both else net.forward
        self._training_logits = wrap(self._logits)

    def loss(self, net: Autoregressor, batch: Batch) -> Terms:
        read = self._training_logits if net.training else self._logits
        found = read(batch.tokens, batch.context)
        logits, auxiliary = found if self._both else (found, None)
        log_prob = token_log_prob(logits, batch.tokens).where(batch.scored, 0)
        weights = scored_weights(batch)
        own = weights.to(log_prob.dtype)
        total = -(log_prob * own).sum()
        if auxiliary is not None:
            total = total + (auxiliary.where(batch.scored, 0) * own).sum()
        correct = (logits.detach().argmax(-1) == batch.tokens) * weights
        nats = -log_prob.detach().double() * weights
        return Terms(total, weights.sum(), {"nats": nats.sum(), "correct": correct.sum()})

    def figures(self, sums: Mapping[str, float], unit: str) -> dict[str, float]:
        count = sums["count"]
        found = figures(sums["nats"], count, count, unit)
        accuracy = sums["correct"] / count if count else float("nan")
        return {
            "nll": found["nll"],
            "accuracy": accuracy,
            f"bits_per_{unit}": found[f"bits_per_{unit}"],
        }
