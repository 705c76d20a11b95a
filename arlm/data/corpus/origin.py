"""What was computed from the contents of files, known again without reading them as long as no file has changed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from arlm.storage import replace_file

OLD = 2  # seconds: the times of some file systems are no finer


def remembered(files: Sequence[Path], key: str, folder: Path, compute: Callable[[], str]) -> str:
    """The hash that `compute` returns of some files, from a note in `folder` if the files are unchanged.

    A note counts for a file of the same name, size, inode, time of modification and time of change, which nobody
    can set: a text that is edited at equal size and time is read again. Nothing is noted of a file that has just
    been written, since an edit could follow within the same tick of the clock.
    """
    before, started = _versions(files), time.time()
    text = json.dumps([key, before])
    note = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.origin"
    with suppress(OSError, ValueError):
        value, checksum = note.read_text(encoding="ascii").split()
        if checksum == _checksum(text, value):
            return value
    value = compute()
    newest = max(version[-1] for version in before) / 1e9
    if os.name == "posix" and before == _versions(files) and newest < started - OLD:
        with suppress(OSError):  # of a folder that cannot be written: then files are read again
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(note, f"{value} {_checksum(text, value)}".encode())
    return value


def _versions(files: Sequence[Path]) -> list[tuple[str, int, int, int, int]]:
    found = [(path, path.stat()) for path in files]
    return [(str(p.resolve()), s.st_size, s.st_ino, s.st_mtime_ns, s.st_ctime_ns) for p, s in found]


def _checksum(text: str, value: str) -> str:
    return hashlib.sha256(f"{text} {value}".encode()).hexdigest()[:16]
