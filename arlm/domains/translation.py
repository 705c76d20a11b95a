"""Pairs of sentences as tokens: the source is the context, the target is modelled."""

from __future__ import annotations

from torch import Tensor

from arlm.core import Spec
from arlm.domains.pair import PairDomain
from arlm.tokenizers import Tokenizer


class TranslationDomain(PairDomain):
    """A sentence and its translation <-> tokens.

    Each side adds one special token at the end of its tokenizer's vocabulary. In the target it marks the end
    of a row and pads the rest; in the source it is padding only.

    Args:
        source: tokenizer of the source.
        target: tokenizer of the target; None if both sides share one tokenizer, and so one vocabulary.
        lowercase: convert both sides to lower case before they are encoded.
    """

    view = "arlm.reports.translation_view.TranslationView"

    def __init__(
        self, source: Tokenizer, target: Tokenizer | None = None, lowercase: bool = False
    ) -> None:
        super().__init__(source if target is None else target, source.vocab_size)
        self.source, self.target, self.lowercase = source, target, lowercase
        self.joint = target is None

    def source_spec(self, length: int) -> Spec:
        return Spec(
            *(self.pad_id + 1, (length,)),
            pad_id=self.pad_id,
            unit=self.unit,
            fingerprint=self.source.fingerprint,
        )

    def encode(self, native: str) -> Tensor:
        """A sentence of the target -> tokens (T,), the end token included."""
        return super().encode(self._cased(native))

    def encode_source(self, native: str) -> Tensor:
        """A sentence of the source -> tokens (S,)."""
        return self.source.encode(self._cased(native), strict=False)

    def _cased(self, text: str) -> str:
        return text.lower() if self.lowercase else text
