"""Text as tokens, by a tokenizer of the `tokenizers` library, each worth its UTF-8 bytes."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from arlm.core import Spec
from arlm.domains.base import Domain
from arlm.errors import UserError

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
UNKNOWN_WORD, END_OF_LINE = "<unk>", "<eos>"
# White space to Python but not to Unicode, or the other way round: left to the library.
ODD_SPACE = re.compile("[\x1c-\x1f\x85]")
# Byte-level tokenizers that split words by GPT-2's pattern never join two of these chunks, so each is
# encoded once and remembered.
CHUNK = re.compile(r"\s+(?!\S)|\s?\S+")
REMEMBERED = 2**20  # chunks


def byte_tokenizer() -> Tokenizer:
    """One token a byte: 256 of them, any text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(alphabet)}, alphabet[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            pre_tokenizers.Split(Regex("."), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def character_tokenizer(alphabet: Iterable[str], unknown: bool = False) -> Tokenizer:
    """One token a character of `alphabet`, sorted, and one for all others if `unknown`."""
    vocabulary = {c: i for i, c in enumerate(sorted(set(alphabet) - {UNKNOWN}))}
    if unknown:
        vocabulary[UNKNOWN] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def word_tokenizer(words: Iterable[str]) -> Tokenizer:
    """One token a word between white space, `<eos>` at each end of a line, `<unk>` for all others.

    The published form of Penn Treebank and WikiText. Decoding gives one space before each word.
    """
    kept = dict.fromkeys([UNKNOWN_WORD, END_OF_LINE, *words])
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(kept)}, UNKNOWN_WORD))
    tokenizer.normalizer = normalizers.Replace("\n", f" {END_OF_LINE} ")
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="\n", cleanup=False), decoders.Replace(END_OF_LINE, "\n")]
    )
    return tokenizer


def sentence_tokenizer(lines: Iterable[str], min_count: int = 1) -> Tokenizer:
    """One token a word or mark that comes `min_count` times in `lines`, and `<unk>` for all others.

    Decoding puts one space before each word and none before most marks.
    """
    split = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    counts = Counter(word for line in lines for word, _ in split.pre_tokenize_str(line))
    kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys([UNKNOWN_WORD, *kept]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, UNKNOWN_WORD))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece(prefix="\n")
    return tokenizer


def bpe_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level byte pair encoding as in GPT-2, trained on `texts`; encodes any text.

    References:
        | Neural Machine Translation of Rare Words with Subword Units (Sennrich et al., 2016)
        | https://arxiv.org/abs/1508.07909
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class TextDomain(Domain):
    """str <-> tokens.

    Args:
        tokenizer: a `tokenizers.Tokenizer`, or its JSON text.
    """

    unit = "byte"

    def __init__(self, tokenizer: Tokenizer | str) -> None:
        if isinstance(tokenizer, str):
            try:
                tokenizer = Tokenizer.from_str(tokenizer)
            except Exception as error:  # the library raises plain Exception
                raise UserError(
                    f"tokenizer: not a tokenizer's JSON ({error}); "
                    "make one with tools/train_tokenizer.py"
                ) from None
        self.tokenizer = tokenizer.to_str()
        self._tokenizer = tokenizer
        self.vocab_size = tokenizer.get_vocab_size()
        self._vocabulary = vocabulary = tokenizer.get_vocab()
        self._bytes = torch.zeros(self.vocab_size)
        specials = {t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special}
        byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)
        lookup = isinstance(tokenizer.model, models.WordLevel) and not specials
        self._words = lookup and isinstance(tokenizer.pre_tokenizer, pre_tokenizers.WhitespaceSplit)
        longer = any(len(token) > 1 for token in vocabulary)
        self._unknown = vocabulary.get(UNKNOWN_WORD if self._words else UNKNOWN)
        #: whether each byte or character is a token, whatever stands beside it
        self.one_symbol_each = lookup and tokenizer.normalizer is None and not longer
        sentences = lookup and longer and not self._words  # of `sentence_tokenizer`
        characters = self.one_symbol_each and not byte_level
        self._alphabet = set(vocabulary) - {UNKNOWN} if characters else None
        self._table = _table(vocabulary, byte_level) if self.one_symbol_each else None
        self._chunks: dict[str, list[int]] | None = {} if _splits_as_gpt2(self.tokenizer) else None
        for token, index in vocabulary.items():
            worth = len(token) if byte_level else len(token.encode())
            if self._words:  # with the space before it; the end of a line is one, and the newline
                worth = 2 if token == END_OF_LINE else worth + 1
            # What the tokenizer does not know is rewritten as one byte before it is modelled.
            unknown = token == UNKNOWN or (sentences and token == UNKNOWN_WORD)
            self._bytes[index] = 0 if token in specials else 1 if unknown else worth

    def spec(self, length: int) -> Spec:
        """The data as a network sees it, in rows of `length` tokens."""
        return Spec(self.vocab_size, (length,), unit=self.unit)

    def encode(self, native: str, strict: bool = True) -> Tensor:
        """str -> tokens (T,) int64.

        Args:
            strict: refuse a character that the tokenizer does not know, even where it has a token for
                the unknown. Decoding gives back `native` whenever this passes.
        """
        if any("\ud800" <= c <= "\udfff" for c in set(native)):
            raise UserError("text: it holds bytes that are not UTF-8; convert it to UTF-8")
        lost = sorted(set(native) - self._alphabet) if self._alphabet is not None else []
        if lost and (strict or self._unknown is None):
            raise UserError(
                f"text: character {lost[0]!r} is unknown to the tokenizer; "
                "leave it out, or train with a byte-level tokenizer"
            )
        if self._table is not None:
            return self._table[_code_points(native, self._alphabet is None, len(self._table))]
        return torch.from_numpy(np.array(self._ids(native, strict), dtype=np.int64))

    def _ids(self, text: str, strict: bool) -> list[int]:
        """Token numbers by the library, or the same ones faster."""
        if self._words:
            words = text.replace("\n", f" {END_OF_LINE} ").split()
            lost = [w for w in words if w not in self._vocabulary] if strict else []
            if lost:
                raise UserError(f"text: the word {lost[0]!r} is not in the vocabulary; use others")
            unknown = self._vocabulary[UNKNOWN_WORD]
            return [self._vocabulary.get(word, unknown) for word in words]
        if self._chunks is None or ODD_SPACE.search(text):
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        chunks = CHUNK.findall(text)
        new = [chunk for chunk in set(chunks) if chunk not in self._chunks]
        if len(self._chunks) + len(new) > REMEMBERED:
            self._chunks = {}
            new = list(set(chunks))
        encoded = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
        self._chunks |= {chunk: e.ids for chunk, e in zip(new, encoded, strict=True)}
        return list(chain.from_iterable(map(self._chunks.__getitem__, chunks)))

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) -> str; bytes that are not UTF-8 become U+FFFD."""
        return self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True)

    def units(self, tokens: Tensor) -> Tensor:
        return self._bytes.to(tokens.device)[tokens]


def _splits_as_gpt2(tokenizer: str) -> bool:
    """Whether a tokenizer's JSON is byte pairs within GPT-2's split, and nothing else."""
    parts = json.loads(tokenizer)
    split = parts["pre_tokenizer"] or {}
    plain = not (parts["normalizer"] or parts["post_processor"] or parts["added_tokens"])
    byte_level = split.get("type") == "ByteLevel" and split["use_regex"]
    return plain and byte_level and not split["add_prefix_space"] and parts["truncation"] is None


def _table(vocabulary: dict[str, int], byte_level: bool) -> Tensor:
    """Token of each byte or code point, for tokenizers of one token a symbol: 100 times as fast.

    The last entry stands for all larger code points.
    """
    if byte_level:
        # The library writes byte b as the character b if that is printable, else as 256, 257, ...
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        hidden = [b for b in range(256) if b not in printable]
        shown = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(hidden)}
        return torch.tensor([vocabulary[shown[b]] for b in range(256)])
    unknown = vocabulary.get(UNKNOWN, 0)
    points = {ord(c): i for c, i in vocabulary.items() if len(c) == 1}
    table = torch.full((max(points, default=0) + 2,), unknown)
    table[list(points)] = torch.tensor(list(points.values()))
    return table


def _code_points(text: str, as_bytes: bool, limit: int) -> Tensor:
    """Bytes of UTF-8, or code points up to the table's last entry, (T,) int64."""
    if not text:
        return torch.zeros(0, dtype=torch.long)
    if as_bytes:
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()
    points = torch.frombuffer(bytearray(text.encode("utf-32-le")), dtype=torch.int32).long()
    return points.clamp(max=limit - 1)
