"""Tokenizers round-trip, and their tokens count the bytes that they stand for."""

import json
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from arlm.checkpoints import build, describe
from arlm.domains import Domain, TextDomain
from arlm.errors import UserError
from arlm.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    SentenceTokenizer,
    WordTokenizer,
)
from arlm.tokenizers.character import UNKNOWN

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


BYTES = TextDomain(ByteTokenizer())


BPE = TextDomain(
    BPETokenizer.train(["the cat sat on the mat. Die Katze saß auf der Matte. "] * 9, 300)
)


@pytest.mark.parametrize("domain", [BYTES, BPE], ids=["byte", "bpe"])
@settings(deadline=None, max_examples=300)
@given(text=UNICODE)
def test_any_text_round_trips(domain: TextDomain, text: str) -> None:
    tokens = domain.encode(text)
    assert domain.decode(tokens) == text
    assert domain.units(tokens).sum() == len(text.encode())
    assert ((tokens >= 0) & (tokens < domain.vocab_size)).all()


@settings(deadline=None, max_examples=300)
@given(text=UNICODE)
def test_a_long_text_is_encoded_in_parts_without_a_trace(text: str) -> None:
    text = text.replace(UNKNOWN, "")
    tokenizers = [
        BPE.tokenizer,
        CharacterTokenizer("a" + text),
        WordTokenizer(text.split()[:3]),
        SentenceTokenizer.train([text]),
    ]
    whole = [tokenizer.encode(text, strict=False).tolist() for tokenizer in tokenizers]
    with (
        patch("arlm.tokenizers.base.PIECE", 3),
        patch("arlm.tokenizers.character.PIECE", 3),
        patch("arlm.tokenizers.bpe.TOGETHER", 2),
    ):
        for tokenizer, tokens in zip(tokenizers, whole, strict=True):
            assert tokenizer.encode(text, strict=False).tolist() == tokens


@settings(deadline=None)
@given(text=UNICODE)
def test_characters_round_trip(text: str) -> None:
    text = text.replace(UNKNOWN, "")
    domain = TextDomain(CharacterTokenizer("a" + text))
    tokens = domain.encode(text)
    assert len(tokens) == len(text)
    assert domain.decode(tokens) == text
    assert domain.units(tokens).sum() == len(text.encode())


@settings(deadline=None, max_examples=300)
@given(text=UNICODE)
def test_tokens_are_bytes_and_alphabet_positions(text: str) -> None:
    assert BYTES.encode(text).tolist() == list(text.encode())
    alphabet = "\nabc\xe9"
    tokens = TextDomain(CharacterTokenizer(alphabet, unknown=True)).encode(text, strict=False)
    assert tokens.tolist() == [alphabet.find(c) % (len(alphabet) + 1) for c in text]


def test_byte_tokens_are_one_a_byte_and_bpe_is_shorter() -> None:
    assert len(BYTES.encode("saß")) == 4
    assert len(BPE.encode("the cat")) < 7


def test_a_domain_is_rebuilt_from_its_description() -> None:
    words = SentenceTokenizer.train(["the cat ß"])
    for tokenizer in (BYTES.tokenizer, BPE.tokenizer, CharacterTokenizer("cateh ß"), words):
        domain = TextDomain(tokenizer)
        again = build(json.loads(json.dumps(describe(domain))), Domain)
        assert torch.equal(again.encode("the cat ß"), domain.encode("the cat ß"))
        assert again.tokenizer.fingerprint == tokenizer.fingerprint
        assert torch.equal(again.tokenizer.token_bytes, tokenizer.token_bytes)


def test_unknown_characters_are_refused_or_marked() -> None:
    domain = TextDomain(CharacterTokenizer("abc", unknown=True))
    with pytest.raises(UserError, match="'z' is unknown"):
        domain.encode("abz")
    tokens = domain.encode("azb", strict=False)
    assert domain.decode(tokens) == f"a{UNKNOWN}b"
    assert domain.units(tokens).tolist() == [1, 1, 1]
    with pytest.raises(UserError, match="unknown"):
        TextDomain(CharacterTokenizer("abc")).encode("abz", strict=False)


def test_half_a_surrogate_pair_is_refused() -> None:
    for domain in (BYTES, BPE):
        with pytest.raises(UserError, match="not UTF-8"):
            domain.encode("a\udcff")


def test_special_tokens_count_no_bytes() -> None:
    library = Tokenizer.from_str(BPE.tokenizer.json_text)
    library.add_special_tokens(["<eos>"])
    domain = TextDomain(BPETokenizer(library.to_str()))
    eos = library.token_to_id("<eos>")
    assert domain.units(torch.tensor([eos, 0])).tolist() == [0, 1]


@pytest.mark.parametrize("text", ['{"not": "a tokenizer"}', "", "[" * 100_000, "\0", "null"])
def test_what_is_no_tokenizer_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"train_tokenizer\.py"):
        BPETokenizer(text)


def test_unknown_words_are_refused_where_decoding_must_return_the_text() -> None:
    tokenizer = SentenceTokenizer(["a", "dog", "runs"])
    assert tokenizer.encode("a cat runs", strict=False).tolist() == [1, 0, 3]
    assert tokenizer.encode("a dog runs").tolist() == [1, 2, 3]
    with pytest.raises(UserError, match="text: 'a cat runs' holds words that the tokenizer"):
        tokenizer.encode("a cat runs")
