"""What was injected, and what came of it: counts by fault and family, printed as a table."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Literal

Harm = Literal["lost", "executed", "hung", "tracebacks", "wrong"]
HARMS: tuple[Harm, ...] = ("lost", "executed", "hung", "tracebacks", "wrong")
HEADER = ("fault", "family or file", "times", "lost", "executed", "hung", "tracebacks", "wrong")
EXAMPLES = 3  # of each harm of a row, printed at once


@dataclass
class Row:
    """Counts of one fault in one family.

    lost: work that was saved, or a figure, is gone, or a run cannot be continued to the same result. executed: code
    of an untrusted file ran. hung: a limit of time or memory was exceeded. tracebacks: a crash in place of one line.
    wrong: another result or exit code, without a word.
    """

    times: int = 0
    harms: dict[str, int] = field(default_factory=lambda: dict.fromkeys(HARMS, 0))


class Table:
    """All counts; harm is reported on stderr as soon as it is seen."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}

    def row(self, fault: str, family: str) -> Row:
        """The row of a fault in a family."""
        return self.rows.setdefault((fault, family), Row())

    def injected(self, fault: str, family: str, times: int = 1) -> None:
        """Count a fault."""
        self.row(fault, family).times += times

    def harm(self, fault: str, family: str, kind: Harm, detail: str) -> None:
        """Count harm that a fault did."""
        counts = self.row(fault, family).harms
        counts[kind] += 1
        if counts[kind] <= EXAMPLES:
            print(f"{kind}: {fault}, {family}: {detail}", file=sys.stderr, flush=True)

    @property
    def harmless(self) -> bool:
        """Whether no fault did harm."""
        return not any(count for row in self.rows.values() for count in row.harms.values())

    def markdown(self) -> str:
        """The table, with a line of sums."""
        counts = [(row.times, *row.harms.values()) for row in self.rows.values()]
        sums = [sum(column) for column in zip(*counts, strict=True)]
        lines = [HEADER, tuple("---" if i < 2 else "---:" for i in range(len(HEADER)))]
        lines += [
            (*name, *(f"{n:,}" for n in row)) for name, row in zip(self.rows, counts, strict=True)
        ]
        lines += [("**all**", "", *(f"**{n:,}**" for n in sums))]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
