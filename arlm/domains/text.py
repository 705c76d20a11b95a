"""Text as tokens, by a tokenizer of the `tokenizers` library, each worth its UTF-8 bytes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from arlm.core import Spec
from arlm.domains.base import Domain
from arlm.errors import UserError

UNKNOWN = "\N{REPLACEMENT CHARACTER}"


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
        vocabulary = tokenizer.get_vocab()
        self._unknown = vocabulary.get(UNKNOWN)
        self._bytes = torch.zeros(self.vocab_size)
        specials = {t.content for t in tokenizer.get_added_tokens_decoder().values() if t.special}
        byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)
        characters = isinstance(tokenizer.model, models.WordLevel) and not byte_level
        self._alphabet = set(vocabulary) - {UNKNOWN} if characters else None
        for token, index in vocabulary.items():
            worth = len(token) if byte_level else len(token.encode())
            # What the tokenizer does not know is rewritten as one byte before it is modelled.
            self._bytes[index] = 0 if token in specials else 1 if token == UNKNOWN else worth

    def spec(self, length: int) -> Spec:
        """The data as a network sees it, in rows of `length` tokens."""
        return Spec(self.vocab_size, (length,), unit=self.unit)

    def encode(self, native: str, strict: bool = True) -> Tensor:
        """str -> tokens (T,) int64.

        Args:
            strict: refuse a character that the tokenizer does not know, even where it has a token for
                the unknown. Decoding gives back `native` whenever this passes.
        """
        lost = sorted(set(native) - self._alphabet) if self._alphabet is not None else []
        if lost and (strict or self._unknown is None):
            raise UserError(
                f"text: character {lost[0]!r} is unknown to the tokenizer; "
                "leave it out, or train with a byte-level tokenizer"
            )
        ids = self._tokenizer.encode(native, add_special_tokens=False).ids
        return torch.tensor(ids, dtype=torch.long)

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) -> str; bytes that are not UTF-8 become U+FFFD."""
        return self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True)

    def units(self, tokens: Tensor) -> Tensor:
        return self._bytes.to(tokens.device)[tokens]
