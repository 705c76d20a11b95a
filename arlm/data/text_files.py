"""Files of text, plain or gz: opened, read, and refused in one line."""

from __future__ import annotations

import zlib
from gzip import GzipFile
from pathlib import Path
from typing import IO

from arlm.errors import UserError

# What a file that is cut short, no gz at all behind its first bytes, or not to be read may raise.
UNREADABLE = (OSError, EOFError, zlib.error)


def opened(path: Path) -> IO[bytes]:
    """The bytes of a file or pipe, unpacked if they are gz.

    Raises:
        OSError: it cannot be opened.
    """
    file = path.open("rb")
    packed = file.peek(2)[:2] == b"\x1f\x8b"  # a pipe cannot be read twice
    return GzipFile(fileobj=file) if packed else file  # type: ignore[return-value]


def read_text(path: Path, field: str) -> str:
    """A file of UTF-8 as it stands, line ends included; `field` is named in the error."""
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
    """The refusal of a file that raised one of UNREADABLE."""
    told = getattr(error, "strerror", None) or error
    return UserError(f"{field}: cannot read '{path}' ({told}); check the file")
