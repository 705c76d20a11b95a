"""The interface of domains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from arlm.construction import Captured
from arlm.tokenizers import Tokenizer


class Domain(Captured, ABC):
    """Native objects <-> tokens, and how many units each token represents.

    Constructor arguments are plain values or tokenizers, so that a checkpoint can describe them.
    """

    unit: str  # singular: "byte", "dim"
    view: ClassVar[str]  # class path of the `arlm.reports.view.View` that displays its objects
    vocab_size: int

    @property
    def text_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of the text that is modelled, whose tokens are the first of the vocabulary; None if it is no text."""
        return None

    @abstractmethod
    def encode(self, native: Any) -> Tensor:
        """Native object -> tokens (..., T) int64."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Any:
        """Tokens (T,) of text, (..., T) of images -> native object."""

    @abstractmethod
    def units(self, tokens: Tensor) -> Tensor:
        """How many `unit`s each token represents: float, in the shape of `tokens`."""
