"""Damaged, crafted, changed and interrupted corpora: the right tokens, or one line."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from arlm.data.corpus import Corpus, Piece, blocks, origin, preparation, prepare
from arlm.errors import UserError
from arlm.tokenizers import ByteTokenizer, CharacterTokenizer

TEXT = "It was the best of times, it was the worst of times; it was the age.\n\n\n" * 30
BYTES = ByteTokenizer()


class Deadly(ByteTokenizer):
    """Kills the process that encodes with it."""

    def ids(self, text: str, strict: bool) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().ids(text, strict)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(blocks, "BLOCK", 200)
    monkeypatch.setattr(blocks, "LONGEST", 500)
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


def prepared(file: Path, tokenizer: Any = BYTES, **options: Any) -> Corpus:
    pieces = [Piece(file, 0, file.stat().st_size)]
    return prepare(pieces, tokenizer, file.parent / "prepared", "\n\n\n", **options)[0]


def root_of(file: Path) -> Path:
    return next((file.parent / "prepared").glob("*/corpus.json")).parent


def as_if_later(monkeypatch: pytest.MonkeyPatch, seconds: float = 10) -> None:
    """What was just written counts as old."""
    real = origin.time.time
    monkeypatch.setattr(origin.time, "time", lambda: real() + seconds)


def test_damage_anywhere_is_refused(file: Path) -> None:
    prepared(file)
    noise, unseen = np.random.default_rng(0), []
    for path in sorted(root_of(file).iterdir()):
        content = path.read_bytes()
        for place in noise.integers(0, len(content), 25):
            damaged = bytearray(content)
            damaged[place] ^= 1 << int(noise.integers(8))
            for changed in (damaged, content[:place], content + b"\0"):
                path.write_bytes(changed)
                said = ""
                try:
                    assert BYTES.decode(prepared(file).whole()) == TEXT
                    unseen.append(path.name)
                except UserError as error:
                    said = str(error)
                assert not said or "; remove '" in said
        path.write_bytes(content)
    # White space in JSON means nothing; anything else is seen.
    assert set(unseen) <= {"corpus.json"}
    assert len(unseen) < 5
    assert BYTES.decode(prepared(file).whole()) == TEXT


def test_an_index_that_is_gone_is_one_line(file: Path) -> None:
    prepared(file)
    for name in ("tokens.bin", *preparation.INDEX.values()):
        kept = (root_of(file) / name).read_bytes()
        (root_of(file) / name).unlink()
        with pytest.raises(UserError, match="cannot be read"):
            prepared(file)
        (root_of(file) / name).write_bytes(kept)
    (root_of(file) / "corpus.json").unlink()  # then nothing was prepared
    assert BYTES.decode(prepared(file).whole()) == TEXT


def test_tokens_that_are_cut_under_a_run_are_one_line(file: Path) -> None:
    corpus = prepared(file)
    corpus.read(torch.tensor([0, 5]), 9)
    tokens = root_of(file) / "tokens.bin"
    os.truncate(tokens, 100)
    with pytest.raises(UserError, match="has 100 bytes: it has changed since it was prepared; rem"):
        corpus.read(torch.tensor([500]), 9)
    tokens.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        corpus.read(torch.tensor([500]), 9)


def test_tokens_that_are_overwritten_under_a_run_are_one_line(file: Path) -> None:
    corpus = prepared(file)
    tokens = root_of(file) / "tokens.bin"
    whole = corpus.whole()
    content = bytearray(tokens.read_bytes())
    tokens.write_bytes(content)  # the same
    assert torch.equal(corpus.whole(), whole)
    content[700] ^= 1
    os.utime(tokens, ns=(0, tokens.stat().st_mtime_ns))
    before = tokens.stat()
    tokens.write_bytes(content)
    os.utime(tokens, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match="has changed since it was prepared; remove"):
        corpus.read(torch.tensor([3]), 9)


def test_each_part_is_verified_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arlm.data.corpus.preparation.CHUNK", 64)
    monkeypatch.setattr("arlm.data.corpus.token_file.CHUNK", 64)
    corpus, tested, real = prepared(file), [], zlib.crc32
    monkeypatch.setattr(
        "arlm.data.corpus.token_file.zlib.crc32", lambda c: tested.append(len(c)) or real(c)
    )
    for starts, length, chunks in (
        ([0], 64, 1),
        ([0], 65, 1),
        ([10, 60, 70], 30, 0),
        ([640, 0], 129, 4),
    ):
        tested.clear()
        rows = corpus.read(torch.tensor(starts), length)
        assert len(tested) == chunks
        expected = [TEXT[start : start + length] for start in starts]
        assert [BYTES.decode(row) for row in rows] == expected
    corpus.whole()
    tested.clear()
    corpus.whole()
    assert not tested


def test_a_token_outside_the_vocabulary_is_named(file: Path) -> None:
    """A corpus that is crafted with right checksums."""
    tokenizer = CharacterTokenizer(TEXT)
    prepared(file, tokenizer)
    root = root_of(file)
    content = bytearray((root / "tokens.bin").read_bytes())
    content[1234] = 200
    (root / "tokens.bin").write_bytes(content)
    crc = zlib.crc32(content).to_bytes(4, "little")
    (root / preparation.INDEX["crc32"]).write_bytes(crc)
    record = json.loads((root / "corpus.json").read_bytes())
    record["crc32"] = hashlib.sha256(crc).hexdigest()
    record["checksum"] = preparation._checksum(record)
    (root / "corpus.json").write_text(json.dumps(record))
    corpus = prepared(file, tokenizer)
    with pytest.raises(UserError, match="token 200 at position 1234, beyond the vocabulary of"):
        corpus.read(torch.tensor([0]), 9)


@pytest.mark.parametrize("noted", [True, False])
def test_a_text_edited_at_equal_size_and_time_gives_new_tokens(
    noted: bool, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_if_later(monkeypatch, 10 if noted else 0)
    assert BYTES.decode(prepared(file).whole()) == TEXT
    assert len(list((file.parent / "prepared").glob("*.origin"))) == noted
    before = file.stat()
    file.write_text(TEXT.replace("best", "last"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert BYTES.decode(prepared(file).whole()) == TEXT.replace("best", "last")


def test_a_file_that_has_not_changed_is_not_hashed_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_if_later(monkeypatch)
    first = prepared(file).whole()
    (note,) = (file.parent / "prepared").glob("*.origin")

    def fail(*_: object) -> None:
        raise AssertionError("hashed again")

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "hashed", fail)
        assert torch.equal(prepared(file).whole(), first)
        for content in (b"", b"x y", b"\xff", note.read_bytes()[:-1]):
            kept = note.read_bytes()
            note.write_bytes(content)
            with pytest.raises(AssertionError):
                prepared(file)
            note.write_bytes(kept)
    shutil.rmtree(root_of(file))  # the note alone
    assert torch.equal(prepared(file).whole(), first)


def test_a_clock_that_is_set_back_notes_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_if_later(monkeypatch, -(10**6))
    assert BYTES.decode(prepared(file).whole()) == TEXT
    assert not list((file.parent / "prepared").glob("*.origin"))


def test_a_folder_that_cannot_be_written_is_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(file)
    as_if_later(monkeypatch)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(origin, "replace_file", refuse)
    assert BYTES.decode(prepared(file).whole()) == TEXT
    monkeypatch.setattr(blocks, "replace_file", refuse)
    with pytest.raises(UserError, match=r"Read-only file system.*set XDG_CACHE_HOME"):
        prepared(file, CharacterTokenizer(TEXT))


def test_a_resumed_preparation_trusts_no_damaged_block(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = blocks.encode_block, []

    def dies(block: Any, tokenizer: Any, separator: Any, target: Path) -> None:
        if len(done) == 6:
            raise KeyboardInterrupt
        done.append(target)
        real(block, tokenizer, separator, target)

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "encode_block", dies)
        with pytest.raises(KeyboardInterrupt):
            prepared(file)
    done[0].write_bytes(b"x" + done[0].read_bytes()[1:])
    done[1].write_bytes(b"")
    done[2].with_suffix(".json").write_bytes(b"{")
    done[3].unlink()
    (done[0].parent / "000009.tokens.tmp-1-abcdef").write_bytes(b"of a killed process")
    assert BYTES.decode(prepared(file).whole()) == TEXT
    names = {path.name for path in root_of(file).iterdir()}
    assert names == {"tokens.bin", "corpus.json", *preparation.INDEX.values()}


def test_a_text_that_changes_while_it_is_prepared_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = blocks.encode_block

    def edits(*arguments: Any) -> None:
        file.write_text(TEXT.replace("worst", "first"))
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "encode_block", edits)
        with pytest.raises(UserError, match="was changed while it was read; run again"):
            prepared(file)
    assert BYTES.decode(prepared(file).whole()) == TEXT.replace("worst", "first")


@pytest.mark.slow  # processes that import torch
def test_a_killed_worker_is_one_line(file: Path) -> None:
    with pytest.raises(UserError, match=r"was killed.*continues where it stopped"):
        prepared(file, Deadly(), workers=2)
    assert BYTES.decode(prepared(file, Deadly.__base__()).whole()) == TEXT
