"""Pairs of sentences as tokens: the source is the context, the target is modelled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import Spec
from arlm.domains.base import Domain
from arlm.domains.text import TextDomain


class TranslationDomain(Domain):
    """A sentence and its translation <-> tokens.

    Either side has one token beside its tokenizer's, the last of the vocabulary, which no text holds: the
    target's ends a row and fills it up behind its end; the source's only fills up.

    Args:
        source: tokenizer of the source, or its JSON text.
        target: that of the target; None where both sides have one, whose numbers they then share.
    """

    unit = "byte"

    def __init__(self, source: Tokenizer | str, target: Tokenizer | str | None = None) -> None:
        self.source_text = TextDomain(source)
        self.target_text = self.source_text if target is None else TextDomain(target)
        self.source = self.source_text.tokenizer
        self.target = None if target is None else self.target_text.tokenizer
        self.pad_id, self.eos_id = self.source_text.vocab_size, self.target_text.vocab_size
        self.vocab_size = self.eos_id + 1
        # The end of a line is worth the newline.
        known = self.target_text.units(torch.arange(self.eos_id))
        self._bytes = torch.cat([known, torch.ones(1)])

    def spec(self, length: int) -> Spec:
        """The data as a network sees it, in rows of up to `length` tokens on either side."""
        context = Spec(self.pad_id + 1, (length,), pad_id=self.pad_id, unit=self.unit)
        return Spec(
            *(self.vocab_size, (length,)),
            eos_id=self.eos_id,
            context=context,
            unit=self.unit,
            joint=self.target is None,
        )

    def encode(self, native: str) -> Tensor:
        """A sentence of the target -> tokens (T,), the end among them."""
        tokens = self.target_text.encode(native, strict=False)
        return torch.cat([tokens, tokens.new_tensor([self.eos_id])])

    def encode_source(self, native: str) -> Tensor:
        """A sentence of the source -> tokens (S,)."""
        return self.source_text.encode(native, strict=False)

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) -> the sentence up to their first end."""
        return self.target_text.decode(self.until_end(tokens))

    def units(self, tokens: Tensor) -> Tensor:
        return self._bytes.to(tokens.device)[tokens]

    def until_end(self, tokens: Tensor) -> Tensor:
        """Tokens (T,) before their first end."""
        return tokens[(tokens == self.eos_id).cumsum(0) == 0]

    def contexts(self, sources: Sequence[Tensor]) -> Tensor:
        """Sources (S,) each -> (B, S), filled up."""
        return pad_sequence(list(sources), batch_first=True, padding_value=self.pad_id)

    def pieces(self, tokens: Tensor, side: TextDomain) -> list[str]:
        """Each token as text, for the axes of a picture."""
        end = {side.vocab_size: "<end>"}
        return [end.get(int(t)) or side.decode(t[None]) for t in tokens]
