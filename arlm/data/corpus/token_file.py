"""A file of tokens, of which each part is verified when it is first read.

    tokens.bin    [256 KiB] [256 KiB] [256 KiB] ...      read, not mapped: a file that is cut under a
    tokens.crc32     crc       crc       crc             run is an error, and no signal that kills it

The size, times and inode of the file are compared at every read. A file that was written since is verified anew.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from arlm.errors import UserError

CHUNK = 2**18  # bytes that have one CRC-32


class TokenFile:
    """Tokens in a file: rows of them, verified.

    Args:
        path: of the file.
        dtype: integer type of the tokens.
        count: number of tokens.
        crcs: (chunks,) CRC-32 of each chunk of the file.
        vocab_size: every token is smaller.
    """

    def __init__(
        self, path: Path, dtype: str, count: int, crcs: np.ndarray, vocab_size: int
    ) -> None:
        self.path, self.dtype, self.count = path, np.dtype(dtype), count
        self.crcs, self.vocab_size = crcs, vocab_size
        self._verified = np.zeros(len(crcs), bool)
        self._version: tuple[int, ...] = ()  # of the file whose chunks are verified
        with self._opened():
            pass

    def __len__(self) -> int:
        return self.count

    def rows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Rows of `length` tokens that start at `starts` (B,): (B, length) of the file's type."""
        found = np.empty((len(starts), length), self.dtype)
        if not found.size:
            return found
        with self._opened() as file:
            self._verify(file, starts, length)
            for row, start in zip(found, starts.tolist(), strict=True):
                self._fill(file, start * self.dtype.itemsize, memoryview(row).cast("B"))
        return found

    def _opened(self) -> IO[bytes]:
        """The file, after a comparison of its size and version with those before."""
        try:
            file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise self._changed(f"cannot be read ({error.strerror})") from None
        found = os.fstat(file.fileno())
        if found.st_size != self.count * self.dtype.itemsize:
            file.close()
            raise self._changed(f"has {found.st_size} bytes: it has changed since it was prepared")
        version = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
        if version != self._version:
            self._version = version
            self._verified[:] = False
        return file

    def _verify(self, file: IO[bytes], starts: np.ndarray, length: int) -> None:
        size = self.dtype.itemsize
        first, last = starts * size // CHUNK, ((starts + length) * size - 1) // CHUNK
        span = int((last - first).max()) + 1
        touched = np.unique(np.minimum(first[:, None] + np.arange(span), last[:, None]))
        for chunk in touched[~self._verified[touched]].tolist():
            begin = chunk * CHUNK
            content = bytearray(min(CHUNK, self.count * size - begin))
            self._fill(file, begin, memoryview(content))
            if zlib.crc32(content) != self.crcs[chunk]:
                raise self._changed("has changed since it was prepared")
            tokens = np.frombuffer(content, self.dtype)
            if tokens.max() >= self.vocab_size:
                place = begin // size + int(tokens.argmax())
                raise self._changed(
                    f"holds the token {tokens.max()} at position {place}, beyond the vocabulary of {self.vocab_size}"
                )
            self._verified[chunk] = True

    def _fill(self, file: IO[bytes], offset: int, view: memoryview) -> None:
        try:
            file.seek(offset)
            while view and (read := file.readinto(view)):  # type: ignore[attr-defined]
                view = view[read:]
        except OSError as error:
            raise self._changed(f"cannot be read ({error.strerror})") from None
        if view:
            raise self._changed("was cut while it was read")

    def _changed(self, what: str) -> UserError:
        return UserError(f"data: '{self.path}' {what}; remove '{self.path.parent}' and run again")
