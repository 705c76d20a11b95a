"""Write results, with a one-line error for a path that cannot be written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from arlm.errors import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
PAGES = (".html", ".htm")


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
    if not path.parent.is_dir():
        raise UserError(
            f"{option}: the folder '{path.parent}' of '{path.name}' does not exist; make it"
        )
    try:
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise UserError(
            f"{option}: cannot write '{path}' ({error.strerror or error}); choose a file you may write"
        ) from None
