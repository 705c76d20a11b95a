"""Crafted and damaged tokenizers: one line each, in bounds of memory, whatever the library does with them."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from peak import peak_growth
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from arlm.errors import UserError
from arlm.tokenizers import BPETokenizer, untrusted

SOUND = BPETokenizer.train(["the quick brown fox jumps over the lazy dog. " * 9], 300).json_text
PARTS = json.loads(SOUND)
MOST = 300 * 2**20  # bytes that refusing one may take


def charsmap(table: list[int], texts: bytes) -> str:
    cells = np.array(table, np.uint32).tobytes()
    return base64.b64encode(len(cells).to_bytes(4, "little") + cells + texts).decode()


def with_model(**changed: Any) -> dict[str, Any]:
    return PARTS | {"model": PARTS["model"] | changed}


def added(content: Any, index: Any, **more: Any) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return PARTS | {"added_tokens": [{"id": index, "content": content} | flags | more]}


def crafted() -> Iterator[tuple[str, Any]]:
    vocabulary = PARTS["model"]["vocab"]
    size = len(vocabulary)
    for value in (4 * 10**9, 2**31, 10**30, -1, size + 1, 0.5, "0", None, True, [], 1e400):
        yield f"an id of {value}", with_model(vocab=vocabulary | {"zz": value})
    yield "an id twice", with_model(vocab=vocabulary | {"zz": 0})
    yield "a gap", with_model(vocab={k: v + (v > 9) for k, v in vocabulary.items()})
    for value in (None, {}, [], 5, "x", [[]], [["a"]], [["a", 0.0], 5]):
        yield f"a vocabulary {value}", with_model(vocab=value)
    for value in (None, {}, 5, "x", [5], [["a", "zz"]], [["a"]], ["a"], ["a b c"], [[None, None]]):
        yield f"merges {value}", with_model(merges=value)
    for value in (None, [], 5, {}, {"type": "os.system"}, {"type": "Unigram", "vocab": []}):
        yield f"a model {value}", PARTS | {"model": value}
    for value in ("", None, 5, "x" * 10**5):
        yield f"added {str(value)[:9]!r}", added(value, size)
    for value in (4 * 10**9, size + 5, -1, "x", None, 0):
        yield f"added with the id {value}", added("<x>", value)
    for name in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        deep: Any = {"type": "Sequence", "normalizers": []}
        for _ in range(120):
            deep = {"type": "Sequence", f"{name}s": [deep]}
        many = {"type": "Sequence", f"{name}s": [{"type": "Lowercase"}] * 30_000}
        for value in (5, "x", [], {}, {"type": "x"}, {"type": "Sequence"}, deep, many):
            yield f"a {name} {str(value)[:30]}", PARTS | {name: value}
    double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    long = double | {"content": "a" * 5000}
    for value in (long, {"type": "Sequence", "normalizers": [double] * 40}):
        yield "replacements", PARTS | {"normalizer": value}
    maps = ["", "!", "AAAA", charsmap([], b""), charsmap([2**32 - 1] * 300, b"a\0")]
    maps += [charsmap([0] * 300, b"a" * 10**5 + b"\0"), charsmap([0x7FFFFFFF] * 4, b"")]
    maps += [base64.b64encode(b"\xff\xff\xff\xff" + bytes(99)).decode(), 5, None]
    for index, value in enumerate(maps):
        precompiled = {"type": "Precompiled", "precompiled_charsmap": value}
        yield f"a map of characters {index}", PARTS | {"normalizer": precompiled}
    for pattern in ("(", "[", "a{99999999}", "(?<x"):
        split = {"pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        yield f"a pattern {pattern}", PARTS | {"pre_tokenizer": {"type": "Split"} | split}
    for name in ("truncation", "padding", "version"):
        for value in (5, "x", [], {}, {"max_length": 4 * 10**9}):
            yield f"{name} {value}", PARTS | {name: value}
    yield "a key twice", SOUND.replace('"model"', '"version":"1.0","model"')
    noise = np.random.default_rng(0)
    for place in noise.integers(0, len(SOUND), 20):
        yield f"without {place}", SOUND[:place] + SOUND[place + 40 :]


def test_many_crafted_tokenizers_are_one_line() -> None:
    failures = []
    cases = list(crafted())
    assert len(cases) > 100
    for name, content in cases:
        text = content if isinstance(content, str) else json.dumps(content)

        def tried(text: str = text) -> str:
            try:
                BPETokenizer(text).encode("the fox")
            except UserError as error:
                return str(error)
            return ""

        try:
            said, growth = peak_growth(tried)
            assert growth < MOST
            assert len(said.splitlines()) == 1 or name.startswith("without"), said
        except BaseException as error:
            failures.append(f"{name}: {type(error).__name__} {str(error)[:200]}")
    assert not failures, "\n".join(failures)


def test_a_panic_while_a_text_is_encoded_is_one_line() -> None:
    class PanicException(BaseException):
        pass

    class Library:
        def __getattr__(self, _: str) -> Any:
            def panics(*_: object, **__: object) -> None:
                raise PanicException("index out of bounds")

            return panics

    tokenizer = BPETokenizer(SOUND)
    tokenizer._library = Library()
    for action in (
        lambda: tokenizer.encode("new"),
        lambda: tokenizer.encode("odd\x1c"),
        lambda: tokenizer.decode(torch.tensor([1])),
    ):
        with pytest.raises(UserError, match="the tokenizer failed on it"):
            action()


def test_known_forms_of_others_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is tried in another process, once."""
    runs: list[Any] = []
    real = subprocess.run
    monkeypatch.setattr(
        untrusted.subprocess, "run", lambda *a, **k: runs.append(a) or real(*a, **k)
    )
    monkeypatch.setattr(untrusted, "_tried", set())
    words = {"<unk>": 0, "the": 1, "fox": 2, "##es": 3}
    unigram = [("<unk>", 0.0), ("▁", -1.0), ("▁the", -2.0), ("f", -3.0), ("o", -3.0), ("x", -3.0)]
    found = {
        "words": Tokenizer(models.WordLevel(words, "<unk>")),
        "pieces": Tokenizer(models.WordPiece(words, unk_token="<unk>")),
        "unigram": Tokenizer(models.Unigram(unigram, 0)),
    }
    for name in ("words", "pieces"):
        found[name].normalizer = normalizers.BertNormalizer()
        found[name].pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    found["unigram"].pre_tokenizer = pre_tokenizers.Metaspace()
    found["unigram"].decoder = decoders.Metaspace()
    for name, library in found.items():
        library.enable_padding(length=10**6)
        library.enable_truncation(3)
        for _ in range(2):
            tokenizer = BPETokenizer(library.to_str())
        tokens = tokenizer.encode("the fox the fox", strict=False)  # neither cut nor padded
        assert len(tokens) == (10 if name == "unigram" else 4)
    assert len(runs) == 3
    BPETokenizer(SOUND)
    assert len(runs) == 3
