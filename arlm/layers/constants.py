"""Constant buffers that keep full precision when a module is cast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class ConstantBuffers(nn.Module):
    """A module that recomputes its constant buffers when it is cast to another type.

    A float32 buffer that is cast to float64 keeps its float32 rounding. A subclass writes `constants` and calls
    `register_constants` in its constructor; the buffers are not saved in the state dict.
    """

    def constants(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The constants by the name of their buffer, computed in `dtype` (float32 or float64)."""
        raise NotImplementedError

    def register_constants(self) -> None:
        """Register every constant as a non-persistent buffer."""
        for name, value in self.constants(torch.get_default_dtype()).items():
            self.register_buffer(name, value, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        result = super()._apply(fn, recurse)
        for name, value in self.constants(torch.float64).items():
            buffer = getattr(self, name)
            if buffer.dtype == torch.float64:
                setattr(self, name, value.to(buffer.device))
        return result
