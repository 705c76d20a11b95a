"""Label smoothing of the gradient only, so that every reported figure is a likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from arlm.core import Autoregressor, Scores
from arlm.errors import UserError, require
from arlm.layers.features import FeatureAutoregressor
from arlm.layers.head import logit_gradient


def smoothed_score(
    net: Autoregressor, smoothing: float
) -> Callable[[Tensor, Tensor | None], Scores] | None:
    """A function that returns the values of `net.score` with the gradient of smoothed labels.

    Args:
        net: a network whose log-probabilities are the softmax of its logits.
        smoothing: share of the target probability that is spread evenly over all tokens, in [0, 1).

    Returns: the function, or None if `smoothing` is 0.
    """
    require(
        0 <= smoothing < 1, "model.objective.label_smoothing", smoothing, "choose from 0 to below 1"
    )
    if not smoothing:
        return None
    kind = type(net)
    softmax = kind.log_prob in (Autoregressor.log_prob, FeatureAutoregressor.log_prob)
    if not softmax or kind.score is not Autoregressor.score:
        raise UserError(
            f"model.objective.label_smoothing: {kind.__name__} computes log-probabilities in its own way; choose 0"
        )

    def score(tokens: Tensor, context: Tensor | None) -> Scores:
        if isinstance(net, FeatureAutoregressor) and net.scores_in_blocks(tokens):
            features = net.features(tokens, context)
            return Scores(net.features_log_prob(features, tokens, smoothing))
        return Scores(smoothed_log_prob(net(tokens, context), tokens, smoothing))

    return score


def smoothed_log_prob(logits: Tensor, tokens: Tensor, smoothing: float) -> Tensor:
    """log p of `tokens` (...) under `logits` (..., V) in nats, with the gradient of smoothed labels.

    The gradient is that of (1 - smoothing) log p(x) + smoothing * mean over v of log p(v).

    References:
        | Rethinking the Inception Architecture for Computer Vision (Szegedy et al., 2016), section 7
        | https://arxiv.org/abs/1512.00567
    """
    return _Smoothed.apply(logits, tokens, smoothing)


class _Smoothed(torch.autograd.Function):
    """One pass over the logits forward and one backward; composed torch operations would make five."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, smoothing: float) -> Tensor:
        dtype = torch.promote_types(logits.dtype, torch.float32)
        total = logits.to(dtype).logsumexp(-1, keepdim=True)
        ctx.save_for_backward(logits, tokens, total)
        ctx.smoothing = smoothing
        return (logits.gather(-1, tokens.unsqueeze(-1)).to(dtype) - total).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        logits, tokens, total = ctx.saved_tensors
        given = tokens.unsqueeze(-1), slope.unsqueeze(-1), ctx.smoothing
        return logit_gradient(logits - total, *given).to(logits.dtype), None, None
