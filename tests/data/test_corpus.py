"""Prepared corpora: equal to encoding at once, reused, resumed, and refused with one-line errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arlm.data.corpus import Piece, blocks, prepare
from arlm.errors import UserError
from arlm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer, WordTokenizer
from datamodules.text_file import TextFile
from datamodules.text_splits import TextSplits

TEXT = "It was the best of times, it was the worst of times;\n\n  it was the age of wisdom.\n" * 40
TOKENIZERS = {
    "byte": ByteTokenizer(),
    "character": CharacterTokenizer(TEXT + "é…\u3000"),
    "bpe": BPETokenizer.train([TEXT], 300),
    "word": WordTokenizer(TEXT.split()),
}


def piece(path: Path) -> list[Piece]:
    return [Piece(path, 0, path.stat().st_size)]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 50)
    monkeypatch.setattr(blocks, "LONGEST", 200)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_blocks_give_the_tokens_of_the_whole(name: str, tmp_path: Path, small_blocks) -> None:
    text = TEXT + " naïve\u3000 \u00a0 x\t\n\n\n y…\n" if name in ("byte", "bpe") else TEXT
    file = tmp_path / "text.txt"
    file.write_text(text)
    stream, counts = prepare(piece(file), TOKENIZERS[name], tmp_path / "prepared")
    assert torch.equal(stream.whole(), TOKENIZERS[name].encode(text))
    assert len(list(blocks.cut(piece(file)[0]))) > 20
    assert counts.tokens == len(stream)
    assert stream.words == counts.words == len(text.split()) + text.count("\n")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.sampled_from("ab .,!\n\t é\u00a0\u3000\x1c\x85'1"), max_size=300))
def test_remembered_chunks_are_the_librarys_tokens(text: str) -> None:
    tokenizer = TOKENIZERS["bpe"]
    expected = tokenizer._library.encode(text, add_special_tokens=False).ids
    assert tokenizer.encode(text).tolist() == expected


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("it was \n the"), max_size=60))
def test_words_are_those_between_white_space(text: str) -> None:
    tokenizer = TOKENIZERS["word"]
    words = text.replace("\n", " <eos> ").split()
    expected = [word if word in {"<eos>", *TEXT.split()} else "<unk>" for word in words]
    decoded = tokenizer.decode(tokenizer.encode(text, strict=False))
    assert decoded == " ".join("\n" if word == "<eos>" else word for word in expected)


def test_words_decode_and_count_their_bytes() -> None:
    tokenizer = TOKENIZERS["word"]
    tokens = tokenizer.encode(" it was \n the end \n", strict=False)
    assert tokenizer.decode(tokens) == "it was \n the <unk> \n"
    counted = tokenizer.token_bytes[tokens].sum()
    assert counted == len(" it was \n the <unk> \n")  # and the next line's space
    with pytest.raises(UserError, match="'end' is not in the vocabulary"):
        tokenizer.encode("the end")


def test_workers_give_the_same_tokens(tmp_path: Path, small_blocks) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    alone, _ = prepare(piece(file), TOKENIZERS["bpe"], tmp_path / "a", workers=0)
    shared, _ = prepare(piece(file), TOKENIZERS["bpe"], tmp_path / "b", workers=2)
    assert torch.equal(alone.whole(), shared.whole())


def test_what_has_not_changed_is_not_prepared_again(tmp_path: Path, monkeypatch) -> None:
    file, folder = tmp_path / "text.txt", tmp_path / "prepared"
    file.write_text(TEXT)
    first, _ = prepare(piece(file), TOKENIZERS["byte"], folder)

    def fail(*_: object) -> None:
        raise AssertionError("prepared again")

    with monkeypatch.context() as patch:
        patch.setattr("arlm.data.corpus.preparation.encode_block", fail)
        again, _ = prepare(piece(file), TOKENIZERS["byte"], folder)
    assert torch.equal(first.whole(), again.whole())
    file.write_text(TEXT + "More.")
    assert len(prepare(piece(file), TOKENIZERS["byte"], folder)[0]) == len(first) + 5
    assert len(list(folder.glob("*/corpus.json"))) == 2


def test_a_killed_preparation_resumes_where_it_stopped(
    tmp_path: Path, small_blocks, monkeypatch
) -> None:
    file, folder = tmp_path / "text.txt", tmp_path / "prepared"
    file.write_text(TEXT)
    calls: list[Path] = []
    real = blocks.encode_block

    def dies(block, tokenizer, separator, target) -> None:
        if len(calls) == 7:
            raise KeyboardInterrupt
        if not target.with_suffix(".json").exists():
            calls.append(target)
        real(block, tokenizer, separator, target)

    monkeypatch.setattr("arlm.data.corpus.preparation.encode_block", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(piece(file), TOKENIZERS["byte"], folder)
    assert not list(folder.glob("*/corpus.json"))
    done = {p: p.stat().st_mtime_ns for p in folder.glob("*/*.tokens")}
    assert len(done) == 7
    monkeypatch.setattr(
        "arlm.data.corpus.preparation.encode_block", lambda *a: calls.append(a[3]) or real(*a)
    )
    stream, _ = prepare(piece(file), TOKENIZERS["byte"], folder)
    assert TOKENIZERS["byte"].decode(stream.whole()) == TEXT


def test_of_two_that_start_together_one_prepares(
    tmp_path: Path, small_blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "text.txt", tmp_path / "prepared"
    file.write_text(TEXT)
    real, both, encoded = blocks.encode_block, threading.Barrier(2), []

    def slow(*arguments) -> None:
        encoded.append(arguments[3])
        time.sleep(0.005)
        real(*arguments)

    def prepare_at_once() -> int:
        both.wait()
        return len(prepare(piece(file), TOKENIZERS["byte"], folder)[0])

    monkeypatch.setattr("arlm.data.corpus.preparation.encode_block", slow)
    with ThreadPoolExecutor() as pool:
        sizes = [pool.submit(prepare_at_once) for _ in range(2)]
    assert [size.result() for size in sizes] == [len(TEXT)] * 2
    assert len(encoded) == len(set(encoded)) > 20


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    file, folder = tmp_path / "text.txt", tmp_path / "prepared"
    file.write_text(TEXT)
    prepare(piece(file), TOKENIZERS["byte"], folder)
    (tokens,) = folder.glob("*/tokens.bin")
    content = bytearray(tokens.read_bytes())
    content[7] ^= 1
    tokens.write_bytes(content)
    corpus, _ = prepare(piece(file), TOKENIZERS["byte"], folder)
    with pytest.raises(UserError, match="has changed since it was prepared; remove"):
        corpus.read(torch.zeros(1).long(), 3)


def test_documents_end_behind_their_separator(tmp_path: Path, small_blocks) -> None:
    file = tmp_path / "text.txt"
    file.write_text("one two\n\n\nthree\n\n\n" + "four " * 40 + "\n\n\nfive")
    stream, _ = prepare(piece(file) * 2, TOKENIZERS["byte"], tmp_path / "prepared", "\n\n\n")
    whole = TOKENIZERS["byte"].decode(stream.whole())
    parts = [
        whole[a:b] for a, b in zip(stream.documents, [*stream.documents[1:], None], strict=True)
    ]
    assert [part[:4] for part in parts] == ["one ", "thre", "four", "five"] * 2
    assert "".join(parts) == file.read_text() * 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text\0text", "is binary"),
        (b"", "bytes; give a text of at least 2"),
        ("é".encode() + "é".encode("latin-1") + b" mixed", "is not UTF-8 text"),
    ],
)
def test_bad_files_have_one_line_errors(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        TextFile(str(file), "byte", length=4).prepare_data()
    assert not list((Path(os.environ["XDG_CACHE_HOME"]) / "arlm").rglob("corpus.json"))


def test_an_endless_word_is_refused_where_words_matter(tmp_path: Path, small_blocks) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a" * 10_000)
    with pytest.raises(UserError, match="has a word of over 200 bytes at byte 50"):
        prepare(piece(file), TOKENIZERS["bpe"], tmp_path / "prepared")
    assert len(prepare(piece(file), TOKENIZERS["byte"], tmp_path / "prepared")[0]) == 10_000


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        file = tmp_path / "text.txt"
        file.write_text(TEXT * 100)
        with pytest.raises(UserError, match=r"No space left on device.*make room"):
            prepare(piece(file), TOKENIZERS["byte"], small)
        assert {path.suffix for path in small.iterdir()} == {".lock"}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_published_counts_of_wikitext(data_dir: Path) -> None:
    data = TextSplits(
        "wikitext-2-valtest/valid.txt",
        "wikitext-2-valtest/test.txt",
        "wikitext-2-valtest/test.txt",
        words_from="all",
        batching="continuous",
        length=35,
    )
    assert len(data.corpus("train")) == 217_646
    assert len(data.corpus("test")) == data.words("test") == 245_569
    worth = data.domain.units(data.corpus("test").whole()).sum()
    assert abs(worth - 1_256_449) < 3  # the file's bytes; its first line is empty


def test_vocabulary_of_the_training_file_knows_no_other_words(tmp_path: Path) -> None:
    for name, text in {"a": "x y y\n" * 9, "b": "x z y\n" * 9}.items():
        (tmp_path / name).write_text(text)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    data = TextSplits(a, b, b, length=4)
    assert data.domain.vocab_size == 4
    assert data.domain.decode(data.corpus("val").whole()[:4]) == "x <unk> y \n"
    assert TextSplits(a, b, b, words_from="all", length=4).domain.vocab_size == 5


def test_the_cut_of_a_file_is_nanogpts(data_dir: Path) -> None:
    data = TextFile("tinyshakespeare/input.txt", "character", one_held_out=True)
    assert data.domain.vocab_size == 65
    assert len(data.corpus("train")) == 1_003_854
    assert len(data.corpus("val")) == 111_540


def test_several_files_are_one_text(tmp_path: Path) -> None:
    names = []
    for index, text in enumerate(("ab€", "€€", "cdefghij")):
        (tmp_path / f"{index}").write_text(text)
        names.append(str(tmp_path / f"{index}"))
    data = TextFile(names, "byte", held_out=0.6, length=2)
    parts = [data.domain.decode(data.corpus(s).whole()) for s in ("train", "val", "test")]
    assert "".join(parts) == "ab€€€cdefghij"
    assert all(parts)
    assert isinstance(json.dumps(data.provenance), str)
    assert np.array_equal(data.corpus("train").documents, [0, 5])
    shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"]) / "arlm")
