"""Domains round-trip, and the units of tokens are correct."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from arlm.checkpoints import build, describe
from arlm.domains import Domain, ImageDomain, TextDomain
from arlm.errors import UserError
from arlm.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    SentenceTokenizer,
)
from arlm.tokenizers.character import UNKNOWN

# All of Unicode but lone surrogates, which no UTF-8 text can hold.
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


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
def test_any_8_bit_image_round_trips(channels: int, height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (2, height, width, channels), generator=generator).to(torch.uint8)
    domain = ImageDomain(256, height, width, channels)
    tokens = domain.encode(images)
    assert tokens.shape == (2, height * width * channels)
    assert torch.equal(domain.decode(tokens), images)
    assert domain.units(tokens).sum() == tokens.numel()


@pytest.mark.parametrize("levels", range(2, 257))
def test_every_number_of_levels_round_trips(levels: int) -> None:
    domain = ImageDomain(levels, 1, levels)
    tokens = torch.arange(levels)
    images = domain.decode(tokens)
    assert torch.equal(domain.encode(images), tokens)
    assert images.min() == 0
    assert images.max() == 255
    grey = torch.arange(256, dtype=torch.uint8).view(1, 256, 1)
    near = ImageDomain(levels, 1, 256)
    step = 256 / levels
    assert (near.decode(near.encode(grey)).int() - grey.int()).abs().max() <= step


def test_raster_order_is_rows_then_columns_then_channels() -> None:
    image = torch.arange(12, dtype=torch.uint8).view(2, 2, 3)
    assert ImageDomain(256, 2, 2, 3).encode(image).tolist() == list(range(12))


def test_bad_images_are_refused() -> None:
    with pytest.raises(UserError, match="levels: 300"):
        ImageDomain(300, 2, 2)
    with pytest.raises(UserError, match="expected"):
        ImageDomain(4, 2, 2).encode(torch.zeros(2, 3, 1, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"torch\.float32"):
        ImageDomain(4, 2, 2).encode(torch.zeros(2, 2, 1))
