"""Write results, and refuse paths that cannot be written in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from arlm.errors import UserError


def write(path: Path, action: Callable[[], object]) -> Path:
    """Make the folder of `path` and run `action`, which writes the file."""
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
    """Write an encoded picture."""
    return write(path, lambda: path.write_bytes(content))


def check_writable(path: Path) -> None:
    """Refuse a path that cannot be written before hours of work, not after."""

    def touch() -> None:
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()

    write(path, touch)
