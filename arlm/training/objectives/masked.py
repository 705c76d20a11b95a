"""Masked likelihood: nats per chosen token, and how many of them are guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from arlm.core import Autoregressor, Batch, token_log_prob
from arlm.evaluation.weights import scored_weights
from arlm.layers.features import FeatureAutoregressor
from arlm.training.objectives.base import Terms
from arlm.training.objectives.likelihood import Likelihood, likelihood_sums


class MaskedLikelihood(Likelihood):
    """Nats per scored token, by its weight. Figures: those of `Likelihood`, and the accuracy.

    Logits are computed for scored tokens only, which are about one in seven of masked rows: with a large vocabulary
    they take most of the time. Gradients are those of `Likelihood`.

    References:
        | BERT (Devlin et al., 2019) | https://arxiv.org/abs/1810.04805
    """

    sums: ClassVar[tuple[str, ...]] = (*Likelihood.sums, "right", "predicted")

    def __init__(self) -> None:
        super().__init__()

    def prepare(self, net: Autoregressor, compile: bool = False) -> None:
        super().prepare(net, compile)
        # Sharded weights (FSDP2) are freed after each method, so features and head have to be one of them.
        self._apart = isinstance(net, FeatureAutoregressor) and not hasattr(net, "unshard")
        read: Callable[..., Tensor] = net.features if self._apart else net  # type: ignore[assignment]
        self._read = torch.compile(read) if compile else read

    def loss(self, net: Autoregressor, batch: Batch) -> Terms:
        found = self._read(batch.tokens, batch.context)[batch.scored]
        logits = net.logits(found) if self._apart else found  # type: ignore[operator]
        tokens = batch.tokens[batch.scored]
        log_prob = token_log_prob(logits, tokens)
        weights = scored_weights(batch)
        total = -(log_prob * weights[batch.scored].to(log_prob.dtype)).sum()
        with torch.no_grad():
            everywhere = torch.zeros(batch.tokens.shape, dtype=torch.float64, device=tokens.device)
            everywhere[batch.scored] = log_prob.double()
            right = (logits.argmax(-1) == tokens).sum()
            figures = likelihood_sums(everywhere, batch)
        predicted: Tensor = batch.scored.sum()
        return Terms(total, weights.sum(), figures | {"right": right, "predicted": predicted})

    def figures(self, sums: Mapping[str, float], unit: str) -> dict[str, float]:
        predicted = sums["predicted"]
        accuracy = sums["right"] / predicted if predicted else float("nan")
        return super().figures(sums, unit) | {"accuracy": accuracy}
