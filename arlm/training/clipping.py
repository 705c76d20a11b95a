"""Clip gradients, under mixed precision too."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.utilities import GradClipAlgorithmType
from torch.optim import Optimizer

from arlm.errors import UserError


def clip_gradients(
    module: LightningModule, optimizer: Optimizer, value: float | None, algorithm: Any
) -> None:
    """Clip the gradients of an optimizer's parameters.

    Lightning refuses this for a fused optimizer under any mixed precision, but only float16, which scales the
    loss, has a reason to.

    Args:
        module: that is trained.
        optimizer: of its parameters.
        value, algorithm: `trainer.gradient_clip_val` and `trainer.gradient_clip_algorithm`.

    Raises:
        UserError: a fused optimizer under float16.
    """
    plugin: Any = module.trainer.precision_plugin
    if not isinstance(plugin, MixedPrecision):
        module.clip_gradients(optimizer, value, algorithm)
        return
    fused = getattr(optimizer, "_step_supports_amp_scaling", False)
    if plugin.scaler is not None and fused and value:
        raise UserError(
            "trainer.precision: 16-mixed cannot clip gradients for a fused optimizer; "
            "choose bf16-mixed, or --model.optimizer.init_args.fused false"
        )
    Precision.clip_gradients(
        plugin, optimizer, value or 0.0, GradClipAlgorithmType(algorithm or "norm")
    )
