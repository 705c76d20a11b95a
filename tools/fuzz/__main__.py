"""`python -m tools.fuzz`: random inputs for every reader and every option, and a table of what became of them.

    python -m tools.fuzz --examples 100000        all readers, about an hour on one core
    python -m tools.fuzz --only tokenizer --examples 5000

The exit code is 1 if an input led to anything but a result or one line, within the bounds of time and memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from pathlib import Path

from tools.fuzz.batches import KILLED, MEMORY, Tally, tally
from tools.fuzz.originals import write_originals
from tools.fuzz.outcomes import FAILURES, SECONDS
from tools.fuzz.readers import readers

COLUMNS = ("result", "refused", *FAILURES, KILLED)


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--examples", type=int, default=10_000, help="inputs, of all readers together"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="READER", help="repeat it for several")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        os.chdir(folder)  # the networks name the data by a relative path
        write_originals(folder)
        found = readers(folder)
        chosen = options.only or list(found)
        if unknown := sorted(set(chosen) - set(found)):
            parser.error(f"no reader {unknown[0]!r}; choose from {', '.join(found)}")
        whole = sum(found[each].share for each in chosen)
        print(f"{'reader':22}{'inputs':>9}" + "".join(f"{c:>11}" for c in COLUMNS), flush=True)
        tallies = {}
        for each in chosen:
            count = max(1, round(options.examples * found[each].share / whole))
            tallies[each] = tally(found[each], count, options.seed, folder)
            print(row(each, tallies[each]), flush=True)
        os.chdir("/")
    everything = Tally()
    for one in tallies.values():
        everything.counts += one.counts
    print(row("all", everything))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"late: more than {SECONDS:g} s; memory: more than {MEMORY / 2**30:g} GiB, or an allocation that failed; "
        f"{used.ru_utime + used.ru_stime:,.0f} s of CPU time"
    )
    for reader, one in tallies.items():
        for failure, example in one.failures.items():
            print(f"\n{reader}: {failure}\n    {example}")
    return int(any(one.failures for one in tallies.values()))


def row(name: str, one: Tally) -> str:
    """A line of the table."""
    numbers = "".join(f"{one.counts[column]:>11,}" for column in COLUMNS)
    return f"{name:22}{one.counts.total():>9,}{numbers}"


if __name__ == "__main__":
    sys.exit(main())
