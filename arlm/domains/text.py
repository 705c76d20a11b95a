"""Text as tokens of a tokenizer, measured in UTF-8 bytes."""

from __future__ import annotations

from torch import Tensor

from arlm.core import Spec
from arlm.domains.base import Domain
from arlm.tokenizers import Tokenizer


class TextDomain(Domain):
    """str <-> tokens.

    Args:
        tokenizer: of the text.
    """

    unit = "byte"
    view = "arlm.reports.text_view.TextView"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size

    @property
    def text_tokenizer(self) -> Tokenizer:
        return self.tokenizer

    def spec(self, length: int) -> Spec:
        """The spec of rows of `length` tokens."""
        fingerprint = self.tokenizer.fingerprint
        return Spec(self.vocab_size, (length,), unit=self.unit, fingerprint=fingerprint)

    def encode(self, native: str, strict: bool = True) -> Tensor:
        """str -> tokens (T,) int64; see `Tokenizer.encode`."""
        return self.tokenizer.encode(native, strict)

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) -> str."""
        return self.tokenizer.decode(tokens)

    def units(self, tokens: Tensor) -> Tensor:
        return self.tokenizer.token_bytes.to(tokens.device)[tokens]
