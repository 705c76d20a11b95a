"""What the tokens of a batch count for in its figures."""

from __future__ import annotations

from torch import Tensor

from arlm.core import Batch


def scored_weights(batch: Batch) -> Tensor:
    """What each token of a batch counts for, (B, T) float64; 0 where it is not scored."""
    scored = batch.scored.double()
    return scored if batch.weights is None else batch.weights.double().where(batch.scored, 0)
