"""Bytes: 256 tokens, any text."""

from __future__ import annotations

import torch
from torch import Tensor

from arlm.tokenizers.base import Tokenizer


class ByteTokenizer(Tokenizer):
    """One token for each byte of UTF-8; the token is the byte's value."""

    splits_words = False
    counts_words = False

    def __init__(self) -> None:
        self.vocab_size = 256
        self.token_bytes = torch.ones(256)

    @property
    def definition(self) -> str:
        return "{}"

    def ids(self, text: str, strict: bool) -> Tensor:
        if not text:
            return torch.zeros(0, dtype=torch.long)
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()

    def spellings(self) -> tuple[list[bytes], list[bytes]]:
        each = [bytes([byte]) for byte in range(256)]
        return each, each

    def decode(self, tokens: Tensor) -> str:
        return bytes(tokens.tolist()).decode(errors="replace")
