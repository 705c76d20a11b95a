"""Pairs of sentences as tokens: the source is the context, the target is modelled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import Spec
from arlm.domains.base import Domain
from arlm.tokenizers import Tokenizer


class TranslationDomain(Domain):
    """A sentence and its translation <-> tokens.

    Each side adds one special token at the end of its tokenizer's vocabulary. In the target it marks the end
    of a row and pads the rest; in the source it is padding only.

    Args:
        source: tokenizer of the source.
        target: tokenizer of the target; None if both sides share one tokenizer, and so one vocabulary.
        lowercase: convert both sides to lower case before they are encoded.
    """

    unit = "byte"
    view = "arlm.reports.translation_view.TranslationView"

    def __init__(
        self, source: Tokenizer, target: Tokenizer | None = None, lowercase: bool = False
    ) -> None:
        self.source, self.target, self.lowercase = source, target, lowercase
        self.target_tokenizer = source if target is None else target
        self.pad_id, self.eos_id = source.vocab_size, self.target_tokenizer.vocab_size
        self.vocab_size = self.eos_id + 1
        # The end of a line counts as one byte, the newline.
        self._bytes = torch.cat([self.target_tokenizer.token_bytes, torch.ones(1)])

    def spec(self, length: int) -> Spec:
        """The spec of rows of up to `length` tokens on either side."""
        context = Spec(
            *(self.pad_id + 1, (length,)),
            pad_id=self.pad_id,
            unit=self.unit,
            fingerprint=self.source.fingerprint,
        )
        return Spec(
            *(self.vocab_size, (length,)),
            eos_id=self.eos_id,
            context=context,
            unit=self.unit,
            joint=self.target is None,
            fingerprint=self.target_tokenizer.fingerprint,
        )

    def encode(self, native: str) -> Tensor:
        """A sentence of the target -> tokens (T,), the end token included."""
        tokens = self.target_tokenizer.encode(self._cased(native), strict=False)
        return torch.cat([tokens, tokens.new_tensor([self.eos_id])])

    def encode_source(self, native: str) -> Tensor:
        """A sentence of the source -> tokens (S,)."""
        return self.source.encode(self._cased(native), strict=False)

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) -> the sentence before their first end token."""
        return self.target_tokenizer.decode(self.until_end(tokens))

    def units(self, tokens: Tensor) -> Tensor:
        return self._bytes.to(tokens.device)[tokens]

    def until_end(self, tokens: Tensor) -> Tensor:
        """Tokens (T,) before their first end token."""
        return tokens[(tokens == self.eos_id).cumsum(0) == 0]

    def contexts(self, sources: Sequence[Tensor]) -> Tensor:
        """Sources (S,) each -> (B, S), padded."""
        return pad_sequence(list(sources), batch_first=True, padding_value=self.pad_id)

    def pieces(self, tokens: Tensor, tokenizer: Tokenizer) -> list[str]:
        """Each token of one side as text, for the axes of a picture."""
        end = tokenizer.vocab_size
        return ["<end>" if t == end else tokenizer.decode(t[None]) for t in tokens]

    def _cased(self, text: str) -> str:
        return text.lower() if self.lowercase else text
