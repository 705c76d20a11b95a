"""The spellings of tokens: joined, they are the text that `decode` returns."""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from arlm.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    SentenceTokenizer,
    Tokenizer,
    WordTokenizer,
)

TEXT = ["the cat sat on the mat. Die Katze saß auf der Matte, don't! 日本 é"] * 9


def metaspace() -> BPETokenizer:
    """Pieces in the form of SentencePiece: U+2581 for a space, and single bytes for what is unknown."""
    library = Library(models.BPE(byte_fallback=True, unk_token="<unk>"))
    library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    names = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=names, show_progress=False)
    library.train_from_iterator(["the cat sat on the mat"] * 9, trainer)
    parts = json.loads(library.to_str())
    for token in parts["added_tokens"]:
        token["special"] = token["content"] in ("<unk>", "<s>")
    parts["added_tokens"] = [token for token in parts["added_tokens"] if token["special"]]
    return BPETokenizer(json.dumps(parts))


def with_special() -> BPETokenizer:
    """Byte-level, with a special token and one that is none."""
    library = Library.from_str(BPETokenizer.train(TEXT, 300).json_text)
    library.add_special_tokens(["<|end|>"])
    library.add_tokens(["<tab é>"])
    library.post_processor = processors.ByteLevel()
    return BPETokenizer(library.to_str())


TOKENIZERS: dict[str, Tokenizer] = {
    "byte": ByteTokenizer(),
    "character": CharacterTokenizer("ab é\n日", unknown=True),
    "bpe": BPETokenizer.train(TEXT, 320),
    "special": with_special(),
    "metaspace": metaspace(),
    "word": WordTokenizer(["the", "cat", ".", "é"]),
    "sentence": SentenceTokenizer.train(TEXT),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_joined_spellings_are_the_decoded_text(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    first, later = tokenizer.spellings()
    assert len(first) == len(later) == tokenizer.vocab_size
    random = torch.Generator().manual_seed(0)
    for _ in range(500):
        size = int(torch.randint(1, 8, (1,), generator=random))
        tokens = torch.randint(tokenizer.vocab_size, (size,), generator=random)
        if not first[tokens[0]]:
            continue  # with no text before them, later tokens are the first
        joined = first[tokens[0]] + b"".join(later[token] for token in tokens[1:].tolist())
        try:
            assert tokenizer.decode(tokens) == joined.decode()
        except UnicodeDecodeError:  # libraries differ in how many U+FFFD they write
            assert "\N{REPLACEMENT CHARACTER}" in tokenizer.decode(tokens)


def test_bytes_are_spelled_by_one_token_each() -> None:
    for name in ("byte", "bpe", "special"):
        first, _ = TOKENIZERS[name].spellings()
        assert {bytes([byte]) for byte in range(256)} <= set(first)
    first, later = TOKENIZERS["metaspace"].spellings()
    assert {bytes([byte]) for byte in range(128, 256)} <= set(first) & set(later)
    assert b" the" in later
    assert b" the" not in first


def test_special_tokens_have_no_spelling() -> None:
    first, _ = TOKENIZERS["special"].spellings()
    names = [TOKENIZERS["special"]._library.id_to_token(i) for i in range(len(first))]  # type: ignore[attr-defined]
    assert first[names.index("<|end|>")] == b""
    assert first[names.index("<tab é>")] == "<tab é>".encode()
