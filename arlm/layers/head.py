"""The last linear map, from features to the logits of a large vocabulary, and its loss in blocks."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGE = 1024  # tokens; a smaller V gains nothing from rounding up


def logits_of(head: nn.Linear, x: Tensor) -> Tensor:
    """head(x), (..., width) -> (..., V).

    On a CPU, the product takes up to 1.7 times as long if rows of the result do not start at multiples of 64
    bytes. Without gradients, V is therefore rounded up for the product.
    """
    size = head.out_features
    padding = -size % 16
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    if plain or not padding or size < LARGE or torch.is_grad_enabled():
        return head(x)
    weight = F.pad(head.weight, (0, 0, 0, padding))
    bias = None if head.bias is None else F.pad(head.bias, (0, padding))
    return F.linear(x, weight, bias)[..., :size]


def log_prob_in_blocks(
    x: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, rows: int, smoothing: float
) -> Tensor:
    """log p of `tokens` (...) under the logits `x @ weight.T + bias`, in nats; they are never all in memory.

    Args:
        x: (..., F).
        weight, bias: (V, F) and (V,) or None; autocast applies to the product.
        tokens: (...) int64.
        rows: tokens of a block.
        smoothing: of labels, in the gradient only; see `logit_gradient`.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    flat = x.reshape(-1, x.shape[-1]), weight, bias, tokens.reshape(-1, 1)
    return _Blocks.apply(*flat, rows, smoothing).view(tokens.shape)


def logit_gradient(log_prob: Tensor, tokens: Tensor, slope: Tensor, smoothing: float) -> Tensor:
    """slope * d/dlogits of (1 - smoothing) log p(x) + smoothing * mean over v of log p(v), (..., V).

    Args:
        log_prob: (..., V), of all tokens; it is overwritten with the result.
        tokens, slope: (..., 1).
        smoothing: share of the target probability that is spread evenly over all tokens.
    """
    result = log_prob.exp_().neg_()
    if smoothing:
        result.add_(smoothing / log_prob.shape[-1])
    return result.mul_(slope).scatter_add_(-1, tokens, slope * (1 - smoothing))


class _Blocks(torch.autograd.Function):
    """Blocks of logits, forward and backward. Weights are arguments, so their gradients are exact whatever
    the module holds by the time of the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        rows: int,
        smoothing: float,
    ) -> Tensor:
        values, totals = [], []
        for part, each in zip(x.split(rows), tokens.split(rows), strict=True):
            logits = F.linear(part, weight, bias)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            total = logits.logsumexp(-1, keepdim=True)
            values.append(logits.gather(-1, each) - total)
            totals.append(total)
        ctx.save_for_backward(x, weight, bias, tokens, torch.cat(totals))
        ctx.rows, ctx.smoothing = rows, smoothing
        return torch.cat(values).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, bias, tokens, totals = ctx.saved_tensors
        of_weight = torch.zeros_like(weight, dtype=totals.dtype)
        of_bias = None if bias is None else totals.new_zeros(bias.shape)
        of_x = []
        columns = (x, tokens, totals, slope.unsqueeze(-1))
        for part, *given in zip(*(column.split(ctx.rows) for column in columns), strict=True):
            each, total, each_slope = given
            log_prob = F.linear(part, weight, bias).to(total.dtype).sub_(total)
            gradient = logit_gradient(log_prob, each, each_slope, ctx.smoothing)
            if of_bias is not None:
                of_bias += gradient.sum(0)
            gradient = gradient.to(x.dtype)
            of_x.append(gradient @ weight)
            if of_weight.dtype == part.dtype:
                of_weight.addmm_(gradient.T, part)  # without another (V, F)
            else:
                of_weight += gradient.T @ part
        of_bias = None if bias is None else of_bias.to(bias.dtype)  # type: ignore[union-attr]
        return torch.cat(of_x), of_weight.to(weight.dtype), of_bias, None, None, None
