"""Open and read text files, plain or gz, with one-line errors for those that cannot be read.

Sizes are bounded: a gz file of 12 MB can hold 12 GB of zeros, and a device has no end.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Iterator
from gzip import GzipFile
from pathlib import Path
from typing import IO, Any

from arlm.errors import UserError

# Raised for a truncated or damaged gz file, or for a file that cannot be read at all.
UNREADABLE = (OSError, EOFError, zlib.error)
LARGEST = 2**30  # bytes of a text that is read as a whole; a larger one is read by a data module
LONGEST = 2**20  # bytes of a line, which is a sentence, a prompt or the name of a file
RATIO = 200  # of decompressed to compressed bytes; text reaches 20, and the log of a server 50
PIECE = 2**20  # bytes that are read at a time
FREE = 2**26  # decompressed bytes before the ratio counts


class Expanded(io.RawIOBase):
    """The decompressed bytes of a gz file, which raises an OSError where they are far more than the file's."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.packed, self.unpacked = file, 0, 0
        counted: Any = self._Counted(self)
        self.content = GzipFile(fileobj=counted, mode="rb")

    class _Counted:
        """Reads the file and counts; a pipe does not know its position."""

        def __init__(self, whole: Expanded) -> None:
            self.whole = whole

        def read(self, size: int = -1) -> bytes:
            found = self.whole.file.read(size)
            self.whole.packed += len(found)
            return found

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self.content.read1(
            min(len(buffer), PIECE)
        )  # which allocates as much as it is asked for
        buffer[: len(found)] = found
        self.unpacked += len(found)
        if self.unpacked > max(FREE, RATIO * self.packed):
            raise OSError(f"its gz data unpacks to more than {RATIO} times its size")
        return len(found)

    def close(self) -> None:
        self.file.close()
        super().close()


def opened(path: Path) -> IO[bytes]:
    """Open a file or pipe for reading bytes, decompressed if it is gz.

    Raises:
        OSError: the file cannot be opened; while it is read, that it is damaged or unpacks to far too much.
    """
    file = path.open("rb")
    packed = file.peek(2)[:2] == b"\x1f\x8b"  # a pipe cannot be read twice
    return io.BufferedReader(Expanded(file), 2**16) if packed else file


def read_text(path: Path, field: str) -> str:
    """The text of a UTF-8 file of up to 1 GiB, line ends unchanged; errors name `field`."""
    try:
        with opened(path) as file:
            content, piece = bytearray(), b" "
            while piece and len(content) <= LARGEST:
                piece = file.read(
                    PIECE
                )  # in pieces, since `read` takes the memory that it is asked for
                content += piece
        if len(content) > LARGEST:
            raise UserError(
                f"{field}: '{path}' holds more than {LARGEST >> 20} MiB of text; split it into parts"
            )
        return content.decode()
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
    """Each line of a file, plain or gz, or of the standard input, which is "-", and what error messages call it.

    A line may have 1 MiB.
    """
    source = "standard input" if name == "-" else f"'{name}'"
    line_name = source
    try:
        with _opened_or_stdin(name) as file:
            number = 0
            while line := file.readline(LONGEST + 1):
                number += 1
                line_name = f"line {number} of {source}"
                if len(line) > LONGEST:
                    raise UserError(
                        f"{line_name}: it has more than {LONGEST >> 20} MiB; break it up, one item a line"
                    )
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
