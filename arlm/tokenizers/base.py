"""The interface of tokenizers."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from arlm.construction import Captured
from arlm.errors import UserError

PIECE = 2**20  # characters that are encoded at a time: a list of parts takes ten times the text
SPACE = re.compile("[ \n]")  # which every tokenizer of words takes for white space


class Tokenizer(Captured, ABC):
    """str <-> token ids.

    A subclass sets `vocab_size` and `token_bytes`, and writes `ids`, `decode` and `definition`. Constructor
    arguments are plain values, so that a checkpoint can describe them.
    """

    vocab_size: int
    token_bytes: Tensor  # (V,) float: UTF-8 bytes that each token represents; 0 for special tokens
    #: whether text may be cut only where a word ends, without changing its tokens
    splits_words: ClassVar[bool] = True
    #: whether tokens are words or larger parts of words, so that figures per word mean something
    counts_words: ClassVar[bool] = True

    @abstractmethod
    def ids(self, text: str, strict: bool) -> Tensor:
        """The tokens of a text without surrogates; see `encode`."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) -> str; bytes that are not UTF-8 become U+FFFD."""

    def spellings(self) -> tuple[list[bytes], list[bytes]]:
        """What each token adds to a text, in UTF-8: as its first token, and after others.

        `decode` returns the joined spellings. They differ in tokenizers that put a space before every word but
        the first. A token that adds nothing, or changes what is before it, has no spelling, b"".
        """
        alone = [self.decode(torch.tensor([token])) for token in range(self.vocab_size)]
        before = next((token for token, text in enumerate(alone) if text.strip()), 0)
        start, later = alone[before], []
        for token in range(self.vocab_size):
            text = self.decode(torch.tensor([before, token]))
            later.append(text[len(start) :].encode() if text.startswith(start) else b"")
        return [text.encode() for text in alone], later

    @property
    @abstractmethod
    def definition(self) -> str:
        """JSON text that determines every token, for fingerprints."""

    def encode(self, text: str, strict: bool = True) -> Tensor:
        """str -> tokens (T,) int64.

        Args:
            text: any text.
            strict: raise a UserError for unknown text, even if the tokenizer has a token for it.
                Decoding the tokens of a strict call returns `text`, but tokenizers by words
                write white space in their own way.
        """
        if any("\ud800" <= c <= "\udfff" for c in set(text)):
            raise UserError("text: it holds bytes that are not UTF-8; convert it to UTF-8")
        return self.ids(text, strict)

    @cached_property
    def fingerprint(self) -> str:
        """Start of the SHA-256 of class and definition: equal for tokenizers that give equal tokens."""
        digest = hashlib.sha256(f"{type(self).__name__} {self.definition}".encode())
        return digest.hexdigest()[:16]


def utf8_bytes(tokens: list[str]) -> Tensor:
    """UTF-8 bytes of each token's text, (V,) float."""
    return torch.tensor([float(len(token.encode())) for token in tokens])


def between_words(text: str) -> Iterator[str]:
    """A text in pieces of about PIECE characters, each of which ends before a space or newline."""
    first = 0
    while first < len(text):
        space = SPACE.search(text, first + PIECE)
        end = space.start() if space else len(text)
        yield text[first:end]
        first = end
