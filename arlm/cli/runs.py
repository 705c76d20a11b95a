"""`arlm runs [FOLDER]`: a table of runs, with their data, their figures and which one is the newest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, print_json


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser("runs", "List runs, oldest first; the newest is marked by *.")
    parser.add_argument("folder", nargs="?", default="runs", help="default runs")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    options = parser.parse(arguments)

    with quick_imports():
        from arlm.inference.listing import list_runs

    rows = list_runs(Path(options.folder))
    if options.json:
        print_json(rows)
    elif rows:
        print_aligned([HEADER, *map(cells, rows)])
    else:
        print(f"no runs in {options.folder}")


HEADER = ["run", "network", "data", "steps", "last", "best", "", "saved"]


def cells(row: dict[str, Any]) -> list[str]:
    """One line of the table."""
    mark = " *" if row["newest"] else ""
    if "error" in row:
        return [row["run"], "cannot be read", "", "", "", "", "", row["saved"] + mark]
    steps = "" if row["step"] is None else f"{row['step']}"
    figures = ["" if row[name] is None else f"{row[name]:.4f}" for name in ("last", "best")]
    unit = (row["figure"] or "").replace("bits_per_", "bits/")
    return [row["run"], row["network"], row["data"], steps, *figures, unit, row["saved"] + mark]


def print_aligned(lines: list[list[str]]) -> None:
    """Print columns, numbers to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        parts = (
            f"{cell:>{width}}" if 3 <= i <= 5 else f"{cell:{width}}"
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join(parts).rstrip())
