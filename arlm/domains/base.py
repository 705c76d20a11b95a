"""The interface of domains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor


class Domain(ABC):
    """Native objects <-> tokens, and how many units each token represents.

    A domain keeps each constructor argument as an attribute of the same name: plain values, or a tokenizer, so
    that a checkpoint can describe it.
    """

    unit: ClassVar[str]  # singular: "byte", "dim"
    view: ClassVar[str]  # class path of the `arlm.reports.view.View` that displays its objects
    vocab_size: int

    @abstractmethod
    def encode(self, native: Any) -> Tensor:
        """Native object -> tokens (..., T) int64."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Any:
        """Tokens (T,) of text, (..., T) of images -> native object."""

    @abstractmethod
    def units(self, tokens: Tensor) -> Tensor:
        """How many `unit`s each token represents: float, in the shape of `tokens`."""
