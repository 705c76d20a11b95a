"""Write results, with a one-line error for a path that cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from arlm.errors import UserError


def write(path: Path, action: Callable[[], object]) -> Path:
    """Create the folder of `path` and call `action`, which writes the file; returns `path`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        action()
    except OSError as error:
        raise UserError(
            f"--out: cannot write '{path}' ({error.strerror or error}); choose a file you may write"
        ) from None
    return path


def write_text(text: str, path: Path) -> Path:
    """Write UTF-8 text."""
    return write(path, lambda: path.write_text(text, encoding="utf-8"))


def write_bytes(content: bytes, path: Path) -> Path:
    """Write bytes, such as an encoded picture."""
    return write(path, lambda: path.write_bytes(content))


def check_writable(path: Path) -> None:
    """Refuse a path that cannot be written; called before the work, which may take hours."""

    def touch() -> None:
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()

    write(path, touch)
