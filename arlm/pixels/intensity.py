"""Pixel levels as inputs of a convolution."""

from __future__ import annotations

import torch
from torch import Tensor

from arlm.layers.constants import ConstantBuffers


class Intensity(ConstantBuffers):
    """Level v of V as an intensity in [-1, 1], so that zero padding around the image is mid-grey.

    Shapes: tokens (...) int64 -> intensities (...).
    """

    values: Tensor  # (V,)

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.register_constants()

    def constants(self, dtype: torch.dtype) -> dict[str, Tensor]:
        return {"values": torch.linspace(-1, 1, self.levels, dtype=dtype)}

    def forward(self, tokens: Tensor) -> Tensor:
        return self.values[tokens]
