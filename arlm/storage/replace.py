"""Write a file aside, make it durable, and rename it to its name.

    write FOLDER/name.tmp-PID-RANDOM, locked   ->   fsync the file   ->   rename to FOLDER/name   ->   fsync FOLDER

A crash between any two steps leaves the old file. Without the first fsync, a crash of the machine could leave the
new name with missing content; without the second one, it could undo the rename. The lock tells an abandoned
temporary file, whose writer was killed, from one that another process is writing.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where abandoned files stay
    fcntl = None  # type: ignore[assignment]

MARK = ".tmp-"


@contextmanager
def replacing(path: str | Path, folder: bool = False) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the place of `path` when the block ends; an exception leaves `path` as it was.

    A link stays a link: the file that it names is replaced. A device or a pipe is written directly.

    Args:
        path: of the file.
        folder: whether it may take the place of a folder, too. There is a moment between two renames without
            either.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not (folder and path.is_dir()):
        with path.open("wb") as device:
            yield device
        return
    remove_abandoned(path.parent, path.name)
    file, temporary = _create(path)
    try:
        with file:
            if path.is_file():  # who may read the old file, and no other, may read the new one
                temporary.chmod(path.stat().st_mode & 0o7777)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:
                # While it is locked: once the lock is released, another process may take the file as abandoned.
                _rename(temporary, path)
        if fcntl is None:  # Windows renames no open file
            _rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _rename(temporary: Path, path: Path) -> None:
    """Rename a file to a name that a file or a folder has."""
    if not path.is_dir():
        temporary.replace(path)
        return
    away = temporary.with_name(f"{temporary.name}-folder")
    path.rename(away)
    temporary.rename(path)
    shutil.rmtree(away, ignore_errors=True)


def replace_file(path: str | Path, content: bytes) -> None:
    """Write a file as a whole; see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files of processes that were killed while they wrote `name`, or anything, in a folder."""
    if fcntl is None:
        return
    with suppress(OSError):  # a folder that cannot be listed may still be written
        for entry in os.scandir(folder):
            written, mark, _ = entry.name.rpartition(MARK)
            if mark and name in (None, written):
                _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(temporary: Path) -> None:
    try:
        handle = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # gone, or of another user
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.unlink(missing_ok=True)
    except OSError:  # its writer is alive
        pass
    finally:
        os.close(handle)


def _create(path: Path) -> tuple[IO[bytes], Path]:
    """A new, locked file beside `path`."""
    while True:
        temporary = path.with_name(f"{path.name}{MARK}{os.getpid()}-{secrets.token_hex(4)}")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        file: IO[bytes] = os.fdopen(handle, "w+b")
        if fcntl is None:
            return file, temporary
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:  # not removed as abandoned before it was locked
            return file, temporary
        file.close()
