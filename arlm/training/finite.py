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
    broken = torch.tensor(float(not all(map(is_finite, values))))
    if strategy is not None:
        broken = strategy.reduce(broken.to(strategy.root_device), reduce_op="sum")
    if broken:
        raise Diverged(
            f"model.optimizer: training diverged: nan or inf at step {step}; "
            "lower its lr, or gradients with trainer.gradient_clip_val"
        )


def is_finite(value: Any) -> bool:
    """Whether a tensor has neither nan nor inf; True for anything else."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    value = value.to_local() if isinstance(value, DTensor) else value
    if not value.numel():  # a process may hold no part of a small tensor
        return True
    # Minimum and maximum are nan if any element is. `isfinite` would allocate as many bytes as there are elements.
    return all(bool(torch.isfinite(extreme)) for extreme in value.detach().aminmax())


def tensors_of(checkpoint: dict[str, Any]) -> Iterable[Any]:
    """Weights and optimizer states of a checkpoint."""
    yield from checkpoint.get("state_dict", {}).values()
    for optimizer in checkpoint.get("optimizer_states", ()):
        for state in optimizer.get("state", {}).values():
            yield from state.values() if isinstance(state, dict) else ()
