"""Byte pair encoding (BPE), and other tokenizers in the JSON format of the `tokenizers` library.

References:
    | Neural Machine Translation of Rare Words with Subword Units (Sennrich et al., 2016)
    | https://arxiv.org/abs/1508.07909
    | Language Models are Unsupervised Multitask Learners (Radford et al., 2019): byte level
    | https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers
from torch import Tensor

from arlm.errors import UserError
from arlm.tokenizers.library import LibraryTokenizer, refused_text
from arlm.tokenizers.untrusted import parsed

# Python's `re` and the library's regular expressions do not agree whether these are white space: text that
# contains them is not split into chunks.
ODD_SPACE = re.compile("[\x1c-\x1f\x85]")
# GPT-2's pattern never joins two of these chunks, so each one is encoded once and cached.
CHUNK = re.compile(r"\s+(?!\S)|\s?\S+")
CACHED = 2**20  # chunks
TOGETHER = 2**18  # chunks that are encoded at a time: a list of them takes ten times the text
BYTE = re.compile("<0x([89A-F][0-9A-F])>")  # a token of one byte of a character of several


class BPETokenizer(LibraryTokenizer):
    """Byte-level BPE as in GPT-2, or any other tokenizer of the library, from its JSON text.

    Special tokens count as 0 bytes. Tokens of a byte-level tokenizer count as the bytes that they represent,
    those of any other tokenizer as the UTF-8 bytes of their text.

    Args:
        json_text: in the library's format. Its truncation and padding are left out.

    Raises:
        UserError: it is no tokenizer's JSON, or too large; see `arlm.tokenizers.untrusted`.
    """

    def __init__(self, json_text: str) -> None:
        parts = parsed(json_text)
        super().__init__(json_text)
        self.json_text = json_text
        byte_level = isinstance(self._library.decoder, decoders.ByteLevel)
        added = self._library.get_added_tokens_decoder().values()
        special = {token.content for token in added if token.special}
        self.token_bytes = torch.zeros(self.vocab_size)
        for token, index in self._library.get_vocab().items():
            size = len(token) if byte_level else len(token.encode())
            if index >= self.vocab_size:
                raise UserError(
                    f"tokenizer: its token {token[:40]!r} has the id {index}; remove it"
                )
            self.token_bytes[index] = 0 if token in special else size
        self._byte_level, self._special = byte_level, special
        self._cache: dict[str, list[int]] | None = {} if _splits_as_gpt2(parts) else None

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> BPETokenizer:
        """Learn byte-level merges from `texts`; the result encodes any text."""
        library = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        library.train_from_iterator(texts, trainer)
        return cls(library.to_str())

    def spellings(self) -> tuple[list[bytes], list[bytes]]:
        names = [self._library.id_to_token(token) or "" for token in range(self.vocab_size)]
        if self._byte_level:
            added = {token.content for token in self._library.get_added_tokens_decoder().values()}
            each = [
                b""
                if name in self._special
                else name.encode()
                if name in added
                else _bytes_of(name)
                for name in names
            ]
            return each, each
        first, later = super().spellings()
        for token, name in enumerate(names):
            if byte := BYTE.fullmatch(name):
                first[token] = later[token] = bytes([int(byte[1], 16)])
        return first, later

    def ids(self, text: str, strict: bool) -> Tensor:
        if self._cache is None or ODD_SPACE.search(text):
            return super().ids(text, strict)
        chunks = (match[0] for match in CHUNK.finditer(text))
        parts = []
        while some := list(islice(chunks, TOGETHER)):
            parts.append(self._chunk_ids(some))
        return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *parts], dtype=np.int64))

    def _chunk_ids(self, chunks: list[str]) -> np.ndarray:
        """The tokens of chunks, each of which is encoded once."""
        assert self._cache is not None
        new = [chunk for chunk in set(chunks) if chunk not in self._cache]
        if len(self._cache) + len(new) > CACHED:
            self._cache = {}
            new = list(set(chunks))
        with refused_text():
            encoded = self._library.encode_batch_fast(new, add_special_tokens=False)
        self._cache |= {chunk: e.ids for chunk, e in zip(new, encoded, strict=True)}
        return np.array(
            list(chain.from_iterable(map(self._cache.__getitem__, chunks))), dtype=np.int32
        )


@cache
def _byte_of_letter() -> dict[str, int]:
    """The byte of each letter of byte-level tokens: its own code, or from 256 on for bytes that do not print."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): b for i, b in enumerate(others)}


def _bytes_of(name: str) -> bytes:
    """The bytes of a byte-level token; none if it has other letters."""
    letters = _byte_of_letter()
    known = all(letter in letters for letter in name)
    return bytes(letters[letter] for letter in name) if known else b""


def _splits_as_gpt2(parts: dict[str, Any]) -> bool:
    """Whether a tokenizer applies byte pairs within GPT-2's split, and nothing else."""
    split = parts.get("pre_tokenizer") or {}
    plain = not any(parts.get(n) for n in ("normalizer", "post_processor", "added_tokens"))
    byte_level = split.get("type") == "ByteLevel" and split.get("use_regex")
    return plain and bool(byte_level) and not split.get("add_prefix_space")
