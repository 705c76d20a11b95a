"""Blocks whose activations are computed again in the backward pass instead of being kept.

References:
    | Training Deep Nets with Sublinear Memory Cost (Chen et al., 2016)
    | https://arxiv.org/abs/1604.06174
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def run_block(block: nn.Module, checkpointed: bool, *arguments: Any) -> Any:
    """Call a block; if `checkpointed`, only its inputs are kept for the backward pass.

    The random state is restored for the second pass, so dropout is the same in both.
    """
    if checkpointed and torch.is_grad_enabled():
        return checkpoint(block, *arguments, use_reentrant=False)
    return block(*arguments)
