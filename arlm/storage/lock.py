"""Lock a folder, so that one process writes it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """A lock on a folder, until `release` or the end of the process; nothing is written.

    It holds nothing on systems and file systems that cannot lock folders (Windows, some of NFS).

    Raises:
        BlockingIOError: another process, or another lock of this one, holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._handle: int | None = None
        if fcntl is None:
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise BlockingIOError(
                    error.errno, "locked by another process", str(folder)
                ) from None
        else:
            self._handle = handle

    def release(self) -> None:
        """Let others lock the folder."""
        if self._handle is not None:
            # Unlocked too, since processes that were forked meanwhile have the handle open.
            fcntl.flock(self._handle, fcntl.LOCK_UN)
            os.close(self._handle)
            self._handle = None
