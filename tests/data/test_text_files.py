"""Text files: bounded sizes, and one line for those that exceed them."""

from __future__ import annotations

import gzip
import os
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from peak import peak_growth

from arlm.data import text_files
from arlm.data.text_files import named_lines, opened, read_text
from arlm.errors import UserError

MOST = 250 * 2**20  # bytes that refusing a file may take


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 MB of zeros in 0.5 MB of gz."""
    path = tmp_path_factory.mktemp("bomb") / "bomb.gz"
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        for _ in range(500):
            file.write(packer.compress(bytes(10**6)))
        file.write(packer.flush())
    return path


def said(path: Path | str, lines: bool) -> str:
    try:
        if lines:
            for _ in named_lines(str(path)):
                pass
        else:
            read_text(Path(path), "data.train")
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("lines", [True, False])
def test_a_bomb_is_refused(lines: bool, bomb: Path) -> None:
    message, growth = peak_growth(lambda: said(bomb, lines))
    expected = "has more than 1 MiB" if lines else "unpacks to more than 200 times its size"
    assert expected in message
    assert growth < MOST


def test_a_bomb_of_short_lines_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "FREE", 2**20)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"a line\n" * 300_000, 9))
    assert "unpacks to more than 200 times its size" in said(path, True)


def test_texts_that_repeat_much_are_read(tmp_path: Path) -> None:
    """Up to 64 MiB the ratio does not count; gz of one line again and again reaches 300."""
    text = b"the same line of a log, again and again\n" * 200_000
    (tmp_path / "log.gz").write_bytes(gzip.compress(text) + gzip.compress(b"the end"))
    assert read_text(tmp_path / "log.gz", "file") == text.decode() + "the end"
    with opened(tmp_path / "log.gz") as file:
        assert file.readline() == text[:40]
    (tmp_path / "plain").write_bytes(text)
    assert len(list(named_lines(str(tmp_path / "plain")))) == 200_000


@pytest.mark.parametrize("ending", [b"", b"\nshort\n"])
def test_a_long_line_is_named(ending: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"short\n" + b"x" * (100 * 10**6) + ending)
    message, growth = peak_growth(lambda: said(path, True))
    assert message.startswith("line 2 of '")
    assert "has more than 1 MiB; break it up" in message
    assert growth < MOST


def test_a_line_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes(b"x" * (2**20 - 1) + b"\nnext")
    assert [len(line) for _, line in named_lines(str(path))] == [2**20 - 1, 4]


def test_a_small_text_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"some text"))
    tracemalloc.start()
    try:
        assert read_text(tmp_path / "text.gz", "file") == "some text"
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_text_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LARGEST", 2**24)
    assert "'/dev/zero' holds more than 16 MiB of text" in said("/dev/zero", False)


@pytest.mark.parametrize("packed", [True, False])
def test_a_pipe_is_read_once(packed: bool, tmp_path: Path) -> None:
    """A shell's <(command) is a pipe."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    text = "one\ntwo\n"
    content = gzip.compress(text.encode()) if packed else text.encode()

    def written() -> Iterator[None]:
        writer = threading.Thread(target=path.write_bytes, args=(content,))
        writer.start()
        yield
        writer.join()

    for _ in written():
        assert [line for _, line in named_lines(str(path))] == ["one", "two"]
    for _ in written():
        assert read_text(path, "file") == text


def test_damaged_gz_files_are_one_line(tmp_path: Path) -> None:
    content = gzip.compress(b"some text to read " * 500)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 255
        path = tmp_path / "damaged.gz"
        path.write_bytes(damaged)
        message = said(path, False)
        assert not message or "cannot read" in message or "not UTF-8" in message
        if (
            not message
        ):  # a byte of the header, such as the time, or the first two: then it is no gz file
            assert read_text(path, "f") == "some text to read " * 500
