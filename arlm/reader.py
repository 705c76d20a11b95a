"""Scores batches in their order: state carried from one to the next, labels smoothed in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from arlm.core import Autoregressor, Batch, Carried
from arlm.errors import UserError, require


class Reader:
    """log_prob of batch after batch; where `batch.fresh` is set, rows go on from the batch before.

    In training this is truncated back-propagation through time: the state is carried, gradients are not.

    Args:
        net: the network.
        compile: compile what scores a batch; the network's parameters and keys stay as they are.
        smoothing: share of the probability that labels give to all tokens alike, in [0, 1); it enters the
            gradient, never the value.
    """

    def __init__(self, net: Autoregressor, compile: bool = False, smoothing: float = 0.0) -> None:
        require(0 <= smoothing < 1, "model.label_smoothing", smoothing, "choose from 0 to below 1")
        if smoothing and type(net).log_prob is not Autoregressor.log_prob:
            raise UserError(
                f"model.label_smoothing: {type(net).__name__} scores tokens in a way of its own; choose 0"
            )
        wrap: Callable = torch.compile if compile else lambda function: function

        def smoothed(tokens: Tensor, context: Tensor | None) -> Tensor:
            return smoothed_log_prob(net(tokens, context), tokens, smoothing)

        self.net = net
        self._log_prob = wrap(smoothed if smoothing else net.log_prob)
        self._carry_on = wrap(net.carry_on)
        self.carried: Carried | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Nats (B, T) of a batch."""
        if batch.fresh is None:
            return self._log_prob(batch.tokens, batch.context)
        if not self.net.carries:
            raise UserError(
                f"data.reading: {type(self.net).__name__} cannot carry its state from row to row; "
                "choose windows for it"
            )
        fresh, before = batch.fresh, self.carried
        if before is None or bool(fresh.all()):
            log_prob, carried = self._carry_on(batch.tokens, None, batch.context)
        elif not bool(fresh.any()):
            log_prob, carried = self._carry_on(batch.tokens, before, batch.context)
        else:  # those that begin, and those that go on
            new, old = fresh.nonzero().flatten(), (~fresh).nonzero().flatten()
            given = None if batch.context is None else batch.context[new]
            first, begun = self._carry_on(batch.tokens[new], None, given)
            rest = Carried(before.last[old], before.state[old])
            second, gone = self._carry_on(batch.tokens[old], rest, None)
            order = torch.cat([new, old]).argsort()
            log_prob = torch.cat([first, second])[order]
            last = torch.cat([begun.last, gone.last])[order]
            carried = Carried(last, begun.state.join(gone.state)[order])
        self.carried = Carried(carried.last, carried.state.map(torch.Tensor.detach))
        return log_prob

    def saved(self) -> list[Tensor]:
        """What is carried, as plain tensors for a checkpoint; nothing at a beginning."""
        return [] if self.carried is None else [self.carried.last, *self.carried.state.leaves()]

    def restore(self, saved: list[Tensor]) -> None:
        """Go on from what `saved` gave."""
        if saved:
            last, *leaves = saved
            _, state = self.net.start(len(last), 1)
            self.carried = Carried(last, state.filled(iter(leaves)))


def smoothed_log_prob(logits: Tensor, tokens: Tensor, smoothing: float) -> Tensor:
    """Nats of `tokens` (...) under `logits` (..., V), with the gradient of smoothed labels.

    The gradient is that of (1 - smoothing) log p(x) + smoothing * mean over v of log p(v).

    References:
        | Rethinking the Inception Architecture for Computer Vision (Szegedy et al., 2016), section 7
        | https://arxiv.org/abs/1512.00567
    """
    return _Smoothed.apply(logits, tokens, smoothing)


class _Smoothed(torch.autograd.Function):
    """One pass over the logits forward and one back, where the composition of torch's takes five."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, smoothing: float) -> Tensor:
        fine = torch.promote_types(logits.dtype, torch.float32)
        total = logits.to(fine).logsumexp(-1, keepdim=True)
        ctx.save_for_backward(logits, tokens, total)
        ctx.smoothing = smoothing
        return (logits.gather(-1, tokens.unsqueeze(-1)).to(fine) - total).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        logits, tokens, total = ctx.saved_tensors
        slope = slope.unsqueeze(-1)
        share = ctx.smoothing / logits.shape[-1]
        result = (logits - total).exp_().neg_().add_(share).mul_(slope)
        result.scatter_add_(-1, tokens.unsqueeze(-1), slope * (1 - ctx.smoothing))
        return result.to(logits.dtype), None, None
