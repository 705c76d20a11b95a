"""Weights, losses and optimizer states that are not finite are never written over good ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from arlm.errors import UserError


class Diverged(UserError):
    """Weights or a loss are not finite: nothing is saved, and the last good checkpoint stays."""


def check_finite(values: Iterable[Any], step: int, strategy: Any = None) -> None:
    """Raise `Diverged` at nan or inf.

    Args:
        values: tensors; what is no tensor of floating-point numbers is passed over.
        step: optimizer steps up to now, for the message.
        strategy: that adds up over all processes, which then raise together; None asks this process alone.
    """
    broken = torch.tensor(float(not all_finite(values)))
    if strategy is not None:
        broken = strategy.reduce(broken.to(strategy.root_device), reduce_op="sum")
    if broken:
        raise Diverged(
            f"model.optimizer: training diverged: nan or inf at step {step}; "
            "lower its lr, or gradients with trainer.gradient_clip_val"
        )


def all_finite(values: Iterable[Any]) -> bool:
    """Whether no tensor has nan or inf, in the part of it that this process holds; other values are passed over."""
    found = [v.to_local() if isinstance(v, DTensor) else v for v in values if isinstance(v, Tensor)]
    found = [v.detach() for v in found if v.is_floating_point() and v.numel()]
    if not found:
        return True
    # A sum is not finite if any element is not; it takes a fraction of the time of `isfinite`, and no memory. Sums of
    # finite numbers that exceed 3e38 are refused with them.
    sums = [v.sum(dtype=torch.promote_types(v.dtype, torch.float32)) for v in found]
    return bool(
        torch.stack([each.to(sums[0].device, torch.float32) for each in sums]).isfinite().all()
    )


def tensors_of(checkpoint: dict[str, Any]) -> Iterable[Any]:
    """Weights and optimizer states of a checkpoint."""
    yield from checkpoint.get("state_dict", {}).values()
    for optimizer in checkpoint.get("optimizer_states", ()):
        for state in optimizer.get("state", {}).values():
            yield from state.values() if isinstance(state, dict) else ()
