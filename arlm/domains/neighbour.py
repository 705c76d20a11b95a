"""A word and one of its neighbours as tokens: the word is the context, the neighbour is modelled."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from arlm.core import Spec
from arlm.domains.base import Domain
from arlm.tokenizers import Tokenizer


class NeighbourDomain(Domain):
    """Words <-> tokens of a tokenizer; a unit is a neighbour.

    Args:
        tokenizer: of the text.
    """

    unit = "neighbour"
    view = "arlm.reports.neighbour_view.NeighbourView"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size

    @property
    def text_tokenizer(self) -> Tokenizer:
        return self.tokenizer

    def spec(self, length: int = 1) -> Spec:
        """The spec of rows of one token, and of the word in the middle as their context."""
        own = Spec(self.vocab_size, (1,), unit=self.unit, fingerprint=self.tokenizer.fingerprint)
        return replace(own, context=replace(own, kind="label"))

    def encode(self, native: str) -> Tensor:
        """A text -> tokens (T,)."""
        return self.tokenizer.encode(native, strict=False)

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) -> text."""
        return self.tokenizer.decode(tokens)

    def units(self, tokens: Tensor) -> Tensor:
        return torch.ones(tokens.shape, device=tokens.device)
