"""Write results as whole files, with a one-line error for a path that cannot be written."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from arlm.errors import UserError, cannot_write
from arlm.storage import replace_file, replacing

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
PAGES = (".html", ".htm")


def write_text(text: str, path: Path, field: str = "file") -> Path:
    """Write UTF-8 text, with ? for what has no code, such as bytes in a file's name; see `write_bytes`."""
    return write_bytes(text.encode(errors="replace"), path, field)


def write_bytes(content: bytes, path: Path, field: str = "file") -> Path:
    """Write bytes, such as an encoded picture, and the folder of `path` if it is missing.

    Args:
        content: of the file.
        path: of the file.
        field: the option that names it, for errors.

    Returns: the path.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise cannot_write(path, error, field) from None
    return path


@contextmanager
def writing_text(path: Path, option: str = "--out") -> Iterator[IO[str]]:
    """A text file that is written little by little, and takes its name when the block ends; see `replacing`.

    Args:
        path: of the file.
        option: the option that names it, for errors.
    """
    try:
        with replacing(path) as file:
            bytes_out: Any = file
            out = io.TextIOWrapper(bytes_out, encoding="utf-8", errors="replace", newline="\n")
            yield out
            out.detach()  # flushed, and closed by `replacing`
    except OSError as error:
        raise cannot_write(path, error, option) from None


def check_suffix(path: Path, suffixes: Sequence[str], option: str = "--out") -> None:
    """Refuse a file name of another format than those of `suffixes`; none of them allows any."""
    if suffixes and path.suffix.lower() not in suffixes:
        example = path.with_suffix(suffixes[0]) if path.name else suffixes[0]
        raise UserError(
            f"{option}: '{path}' does not end in {', '.join(suffixes)}; write for example '{example}'"
        )


def check_writable(path: Path, option: str = "--out", suffixes: Sequence[str] = ()) -> None:
    """Refuse a file that cannot be written; called before the work, which may take hours.

    Args:
        path: of the file, in a folder that exists.
        option: the option that names it.
        suffixes: of the formats that can be written; none of them allows any.
    """
    check_suffix(path, suffixes, option)
    try:
        if not path.parent.is_dir():
            raise UserError(
                f"{option}: the folder '{path.parent}' of '{path.name}' does not exist; make it"
            )
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if path.is_file() or not path.exists():  # a pipe that is opened and closed would end
            tempfile.TemporaryFile(dir=path.resolve().parent).close()
    except OSError as error:
        raise cannot_write(path, error, option) from None
