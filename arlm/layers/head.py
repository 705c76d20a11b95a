"""The last linear map, from features to the logits of a large vocabulary."""

from __future__ import annotations

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
