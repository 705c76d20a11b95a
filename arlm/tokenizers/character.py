"""Characters: one token for each character of an alphabet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor

from arlm.errors import UserError
from arlm.tokenizers.base import PIECE, Tokenizer, utf8_bytes

UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class CharacterTokenizer(Tokenizer):
    """One token for each character of `alphabet`, in code point order.

    Args:
        alphabet: the known characters.
        unknown: add a token for all other characters, which decodes to U+FFFD and counts as one byte.
    """

    splits_words = False
    counts_words = False

    def __init__(self, alphabet: Iterable[str], unknown: bool = False) -> None:
        self.alphabet, self.unknown = "".join(sorted(set(alphabet) - {UNKNOWN})), unknown
        self._known = set(self.alphabet)
        characters = [*self.alphabet, *([UNKNOWN] if unknown else [])]
        self._characters = characters
        self.vocab_size = len(characters)
        self.token_bytes = utf8_bytes(characters)
        if unknown:
            self.token_bytes[-1] = 1
        # The token of each code point; the last entry is for all larger code points.
        largest = max(map(ord, characters), default=0)
        self._table = torch.full((largest + 2,), len(self.alphabet) if unknown else 0)
        self._table[[ord(c) for c in characters]] = torch.arange(len(characters))

    @classmethod
    def train(
        cls, texts: Iterable[str], unknown: bool = False, min_count: int = 1
    ) -> CharacterTokenizer:
        """The alphabet of the characters that occur at least `min_count` times in `texts`."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        return cls((c for c, count in counts.items() if count >= min_count), unknown)

    @property
    def definition(self) -> str:
        return json.dumps([self.alphabet, self.unknown])

    def ids(self, text: str, strict: bool) -> Tensor:
        lost = sorted(set(text) - self._known)
        if lost and (strict or not self.unknown):
            raise UserError(
                f"text: character {lost[0]!r} is unknown to the tokenizer; "
                "leave it out, or train with a byte-level tokenizer"
            )
        found = torch.empty(len(text), dtype=torch.long)
        for first in range(
            0, len(text), PIECE
        ):  # the code points of all would take six times the text
            part = bytearray(text[first : first + PIECE].encode("utf-32-le"))
            points = torch.frombuffer(part, dtype=torch.int32).long()
            found[first : first + PIECE] = self._table[points.clamp(max=len(self._table) - 1)]
        return found

    def decode(self, tokens: Tensor) -> str:
        return "".join(map(self._characters.__getitem__, tokens.tolist()))
