"""Open and read text files, plain or gz, with one-line errors for those that cannot be read."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from gzip import GzipFile
from pathlib import Path
from typing import IO

from arlm.errors import UserError

# Raised for a truncated or damaged gz file, or for a file that cannot be read at all.
UNREADABLE = (OSError, EOFError, zlib.error)


def opened(path: Path) -> IO[bytes]:
    """Open a file or pipe for reading bytes, decompressed if it is gz.

    Raises:
        OSError: the file cannot be opened.
    """
    file = path.open("rb")
    packed = file.peek(2)[:2] == b"\x1f\x8b"  # a pipe cannot be read twice
    return GzipFile(fileobj=file) if packed else file  # type: ignore[return-value]


def read_text(path: Path, field: str) -> str:
    """The text of a UTF-8 file, line ends unchanged; errors name `field`."""
    try:
        with opened(path) as file:
            return file.read().decode()
    except UNREADABLE as error:
        raise unreadable(field, path, error) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{field}: '{path}' is not UTF-8 text (byte {error.start}); convert it to UTF-8"
        ) from None


def unreadable(field: str, path: object, error: BaseException) -> UserError:
    """The error to raise for a file that raised one of UNREADABLE."""
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{field}: cannot read '{path}' ({reason}); check the file")


def named_lines(name: str) -> Iterator[tuple[str, str]]:
    """Each line of a file, plain or gz, or of the standard input, which is "-", and what error messages call it."""
    source = "standard input" if name == "-" else f"'{name}'"
    line_name = source
    try:
        with _opened_or_stdin(name) as file:
            for number, line in enumerate(file, start=1):
                line_name = f"line {number} of {source}"
                yield line_name, line.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{line_name}: byte {error.start + 1} is not UTF-8; convert it to UTF-8"
        ) from None
    except UNREADABLE as error:  # a truncated gz file, too
        raise unreadable("file", name, error) from None


def _opened_or_stdin(name: str) -> IO[bytes]:
    if name != "-":
        return opened(Path(name))
    if sys.stdin is None or sys.stdin.closed:
        raise UserError("standard input: it is closed; name a file, or pipe text into it")
    return sys.stdin.buffer
