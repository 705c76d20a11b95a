"""Weights, losses and optimizer states that are not finite are never written over good ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from arlm.errors import UserError


class Diverged(UserError):
    """Weights or a loss are not finite: nothing is saved, and the last good checkpoint stays."""


def check_finite(values: Iterable[Any], step: int) -> None:
    """Raise `Diverged` at nan or inf.

    Args:
        values: tensors; what is no tensor of floating-point numbers is passed over.
        step: optimizer steps up to now, for the message.
    """
    if not all(map(is_finite, values)):
        raise Diverged(
            f"model.optimizer: training diverged: nan or inf at step {step}; "
            "lower its lr, or gradients with trainer.gradient_clip_val"
        )


def is_finite(value: Any) -> bool:
    """Whether a tensor has neither nan nor inf; True for anything else."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        return True
    # Minimum and maximum are nan if any element is. `isfinite` would allocate as many bytes as there are elements.
    return all(bool(torch.isfinite(extreme)) for extreme in value.detach().aminmax())


def tensors_of(checkpoint: dict[str, Any]) -> Iterable[Any]:
    """Weights and optimizer states of a checkpoint."""
    yield from checkpoint.get("state_dict", {}).values()
    for optimizer in checkpoint.get("optimizer_states", ()):
        for state in optimizer.get("state", {}).values():
            yield from state.values() if isinstance(state, dict) else ()
