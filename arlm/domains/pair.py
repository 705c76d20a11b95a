"""A source of any kind and a text: the source is the context, the text is modelled."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import Spec
from arlm.domains.base import Domain
from arlm.tokenizers import Tokenizer


class PairDomain(Domain):
    """A source and a text <-> tokens. A subclass writes `encode_source` and `source_spec`.

    The text's vocabulary has one token more than its tokenizer, the last one: it marks the end of a row and pads
    the rest. The source's padding is `pad_id`, which no source contains.

    Args:
        target: tokenizer of the text.
        pad_id: padding of the source.
    """

    unit = "byte"
    joint = False  # whether source and text have one vocabulary

    def __init__(self, target: Tokenizer, pad_id: int) -> None:
        self.target_tokenizer = target
        self.pad_id, self.eos_id = pad_id, target.vocab_size
        self.vocab_size = self.eos_id + 1
        # The end of a line counts as one byte, the newline.
        self._bytes = torch.cat([target.token_bytes, torch.ones(1)])

    @property
    def text_tokenizer(self) -> Tokenizer:
        return self.target_tokenizer

    @abstractmethod
    def source_spec(self, length: int) -> Spec:
        """The spec of the sources, of rows whose texts have up to `length` tokens."""

    @abstractmethod
    def encode_source(self, native: Any) -> Tensor:
        """A source -> tokens (S,)."""

    def spec(self, length: int) -> Spec:
        """The spec of rows of up to `length` tokens."""
        return Spec(
            *(self.vocab_size, (length,)),
            eos_id=self.eos_id,
            context=self.source_spec(length),
            unit=self.unit,
            joint=self.joint,
            fingerprint=self.target_tokenizer.fingerprint,
        )

    def encode(self, native: str) -> Tensor:
        """A text -> tokens (T,), the end token included."""
        tokens = self.target_tokenizer.encode(native, strict=False)
        return torch.cat([tokens, tokens.new_tensor([self.eos_id])])

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) -> the text before their first end token."""
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
