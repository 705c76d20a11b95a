"""A line `<!-- rooms: arlm.models arlm.adapters -->` becomes the reference of every module of these rooms.

So a new module is in the reference without a change of a page.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
LINE = re.compile(r"^<!-- rooms: ([\w. ]+) -->$", re.M)


def modules(room: str) -> list[str]:
    """A room that is a module, or the modules of a room that is a folder and of the folders in it."""
    folder = ROOT / room.replace(".", "/")
    if not folder.is_dir():
        return [room]
    found = sorted(path.relative_to(ROOT) for path in folder.rglob("*.py"))
    names = [".".join(path.with_suffix("").parts) for path in found]
    return [name for name in names if not name.endswith("__init__")]


def section(module: str) -> str:
    """The part of a page on one module."""
    return f"## `{module}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n   :show-inheritance:\n```\n"


def expand(app: Sphinx, name: str, source: list[str]) -> None:
    """Replace the lines of one page."""

    def sections(found: re.Match[str]) -> str:
        return "\n".join(section(m) for room in found[1].split() for m in modules(room))

    source[0] = LINE.sub(sections, source[0])


def as_written(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Mark drawings as literal and begin lists of bullets, as a reader of the source sees them.

    A drawing is an indented paragraph after an empty line; a list may follow its sentence without an empty line.
    """
    given, lines[:] = list(lines), []
    literal = False
    for before, line in pairwise(["", *given]):
        indented = line.startswith("    ")
        if indented and not literal and not before.strip() and lines:
            lines += ["::", ""]
            literal = True
        elif line.strip() and not indented:
            literal = False
        if line.startswith("- ") and before.strip() and not before.startswith(("- ", " ")):
            lines.append("")
        lines.append(line)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both."""
    app.connect("source-read", expand)
    app.connect("autodoc-process-docstring", as_written, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
