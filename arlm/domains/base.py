"""The interface of domains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from arlm.construction import Captured, Construction
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

    def differences(self, other: Domain) -> dict[str, tuple[Any, Any]]:
        """The options other than tokenizers because of which this domain does not read the objects of another one.

        Args:
            other: a domain of the same class.

        Returns: the value here and that of the other one, by name.
        """
        ours, theirs = (domain.construction.arguments for domain in (self, other))
        values = {name: (ours.get(name), theirs.get(name)) for name in ours | theirs}
        return {
            name: pair
            for name, pair in values.items()
            if not any(isinstance(v, Construction) for v in pair) and not self.covers(name, *pair)
        }

    def covers(self, option: str, own: Any, other: Any) -> bool:
        """Whether a domain with one value of an option reads the objects of a domain with another value."""
        return own == other

    @abstractmethod
    def encode(self, native: Any) -> Tensor:
        """Native object -> tokens (..., T) int64."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Any:
        """Tokens (T,) of text, (..., T) of images -> native object."""

    @abstractmethod
    def units(self, tokens: Tensor) -> Tensor:
        """How many `unit`s each token represents: float, in the shape of `tokens`."""
