"""The fenced blocks of a page: commands, Python to run, and files for the reader to write.

    ```bash                     commands, one on each line (a trailing \\ continues it); `#` begins a comment
    ```python                   a program of its own
    ```{code-block} python      with a `:caption: NAME`: the file NAME, for the commands that follow
    ```{literalinclude} PATH    with `:language: python`: the program at PATH
    ```{code-cell}              executed by the build of the pages
    ```text                     shown only, like yaml without a caption

A block of any other language is an error: nothing that looks like a command is left out by its spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RUN = ("bash", "python")
BY_THE_BUILD = ("{code-cell}",)
SHOWN = ("text", "yaml", "json", "bibtex", "html", "jsonl")
DIRECTIVES = re.compile(r"\{(?!code-cell|code-block|literalinclude)[\w:-]+\}")
FENCE = re.compile(r"^ *(`{3,}|:{3,})(.*)$")


class UnknownBlock(Exception):
    """A block that is neither run nor known to be shown only."""


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Args:
        language: "bash", "python", "file", "{code-cell}", or one that is shown only.
        text: what is inside, without options.
        name: of a file.
        line: where it begins in the page.
    """

    language: str
    text: str
    name: str = ""
    line: int = 0

    @property
    def commands(self) -> list[str]:
        """The commands of a bash block, or its one program."""
        if self.language == "python":
            return [self.text]
        if self.language != "bash":
            return []
        lines = re.sub(r"\s*\\\n\s*", " ", self.text).splitlines()
        return [
            line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")
        ]


def pages(root: Path) -> list[Path]:
    """README.md and every page of the documentation."""
    found = [p for p in (root / "docs").rglob("*.md") if "_build" not in p.parts]
    return [root / "README.md", *sorted(found)]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order; those inside a directive such as a tip too."""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        fence = FENCE.match(line)
        if not fence:
            continue
        marks, info = fence[1], fence[2].strip()
        if not info or DIRECTIVES.match(info):
            # The text of an admonition or a table is read like the page; `{eval-rst}` and `{math}` have no fence in them.
            continue
        inside = []
        for _, text in lines:
            if text.strip().startswith(marks) and not text.strip().strip(marks[0]):
                break
            inside.append(text)
        yield _block(page, number, info, inside)


def _block(page: Path, number: int, info: str, lines: list[str]) -> Block:
    """A block from the text after its fence and the lines inside."""
    options = {}
    kind, _, argument = info.partition(" ")
    if kind.startswith("{"):
        while lines and (option := re.match(r"^:([\w-]+): *(.*)$", lines[0])):
            options[option[1]] = option[2]
            lines = lines[1:]
    text = "\n".join(lines).strip("\n") + "\n"
    if kind == "{literalinclude}" and options.get("language") == "python":
        return Block("python", (page.parent / argument).read_text(encoding="utf-8"), "", number)
    if kind == "{code-block}":
        if "caption" in options:
            return Block("file", text, options["caption"].strip("`"), number)
        kind = argument
    if kind not in (*RUN, *BY_THE_BUILD, *SHOWN):
        raise UnknownBlock(
            f"{page}:{number}: a block of {info!r}; use {', '.join(RUN)} for what is run, "
            f"{', '.join(SHOWN)} for what is shown"
        )
    return Block(kind, text, "", number)
