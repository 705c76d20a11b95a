"""Folders of data sets and prepared corpora, and the split that a document belongs to."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from arlm.errors import UserError

Split = Literal["train", "val", "test"]


def data_folder(data_dir: str | None) -> Path:
    """Folder of the data sets: `data_dir`, else $ARLM_DATA_DIR, else the user cache."""
    return Path(data_dir or os.environ.get("ARLM_DATA_DIR") or cache_folder()).expanduser()


def cache_folder() -> Path:
    """The user cache: $XDG_CACHE_HOME/arlm, else ~/.cache/arlm."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "arlm"


def prepared_folder() -> Path:
    """Folder of prepared corpora, in the user cache."""
    return cache_folder() / "prepared"


def find_file(path: str, data_dir: str | None, field: str = "data.path") -> Path:
    """The path of a file in the working folder, else in the folder of the data sets."""
    folders = (Path(), data_folder(data_dir))
    # `is_file` of a Path raises an error for a name that is too long.
    found = [f / path for f in folders if os.path.isfile(f / path)]
    if not found:
        raise UserError(
            f"{field}: '{path}' is neither in '{folders[0].resolve()}' nor in "
            f"'{folders[1]}'; put it there, or set ARLM_DATA_DIR"
        )
    return found[0]


def split_of(name: str, parts: int) -> Split:
    """The split of a document by a hash of its name: one in `parts` for the test, one for validation."""
    bucket = int(hashlib.sha256(name.encode()).hexdigest(), 16) % parts
    return "test" if bucket == 0 else "val" if bucket == 1 else "train"
