"""What every domain offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor


class Domain(ABC):
    """Native <-> tokens, and what a token is worth.

    A domain keeps each constructor argument as an attribute of the same name, plain enough for JSON, so
    that a checkpoint can carry it (`arlm.checkpoints.describe`).
    """

    unit: ClassVar[str]  # singular: "byte", "dim"
    vocab_size: int

    @abstractmethod
    def encode(self, native: Any) -> Tensor:
        """Native -> tokens (..., T) int64."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Any:
        """Tokens (T,) for text, (..., T) for images -> native."""

    @abstractmethod
    def units(self, tokens: Tensor) -> Tensor:
        """How many `unit`s each token stands for, float, of the shape of `tokens`."""
