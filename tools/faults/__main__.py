"""`python -m tools.faults`: inject faults, print the table; exit code 1 if any of them did harm."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; children inherit it

from tools.faults import crafted, damage, interruptions, processes, surroundings, unsynced
from tools.faults.children import import_arlm
from tools.faults.references import Reference, references
from tools.faults.table import Table


class Kind(NamedTuple):
    """A kind of fault: the function that injects it, and how often in each form of the attack."""

    inject: Callable[[Table, Path, random.Random, int, Sequence[Reference]], None]
    times: int
    long: int


KINDS = {
    "interruptions": Kind(interruptions.inject, 56, 500),
    "unsynced": Kind(unsynced.inject, 24, 160),
    "damage": Kind(damage.inject, 120, 2400),
    "crafted": Kind(crafted.inject, 1, 9),
    "surroundings": Kind(surroundings.inject, 24, 120),
    "processes": Kind(processes.inject, 12, 96),
}


def attack(kinds: Sequence[str], long: bool, seed: int, work: Path, scale: float = 1.0) -> Table:
    """Inject the kinds of faults that are named; returns the counts.

    Args:
        kinds: of KINDS.
        long: in the long form.
        seed: of the instants and the damage.
        work: an empty folder.
        scale: factor of the numbers of faults, for a test.
    """
    table = Table()
    import_arlm()
    wholes = references(table, work / "references")
    for name in kinds:
        kind = KINDS[name]
        times = max(1, round((kind.long if long else kind.times) * scale))
        started = time.monotonic()
        folder = work / name
        folder.mkdir()
        kind.inject(table, folder, random.Random(f"{seed} {name}"), times, wholes)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return table


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="tools.faults",
        description="Inject faults into runs, and count what they do.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--long", action="store_true", help="500 interruptions and thousands of damaged files"
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="default: all"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the instants and the damage (default 0)"
    )
    parser.add_argument("--out", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="arlm-faults-") as folder:
        table = attack(options.kinds, options.long, options.seed, Path(folder))
    seconds = time.monotonic() - started
    form = "long form" if options.long else "short form"
    text = f"{date.today()}, {form}, seed {options.seed}, {seconds / 60:.0f} minutes\n\n{table.markdown()}"
    print(text, end="")
    if options.out:
        options.out.write_text(text)
    return 0 if table.harmless else 1


if __name__ == "__main__":
    sys.exit(main())
