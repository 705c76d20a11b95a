"""Many inputs for one reader, in processes of limited memory that may die without taking the others with them."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase

from tools.fuzz.outcomes import FAILURES, SECONDS, Outcome, outcome_of
from tools.fuzz.readers import Reader

MEMORY = 2**31  # bytes of address space beyond those in use when a process starts
BATCH = 500  # inputs of one process
KILLED = "killed"
SHOWN = 400  # characters of an input in a report


@dataclass
class Tally:
    """Outcomes of one reader.

    Args:
        counts: of inputs, by kind of outcome.
        failures: the shortest input of each failure.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: Outcome, example: str) -> None:
        """Count an outcome."""
        self.counts[outcome.kind] += 1
        if outcome.kind in (*FAILURES, KILLED):
            name = re.sub(
                r"\b\d+\b(?![^(]*\)$)", "N", f"{outcome.kind} {outcome.what}"
            )  # but lines
            known = self.failures.get(name)
            if known is None or len(example) < len(known):
                self.failures[name] = example


def run_examples(reader: Reader, count: int, seed: int) -> Iterator[tuple[Outcome, str]]:
    """Outcomes of `count` inputs, in this process; the working folder holds the originals."""
    found: list[tuple[Outcome, str]] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(reader.inputs)
    def run(example: Any) -> None:
        shown = repr(example)[:SHOWN]
        _report({"example": shown})
        outcome = outcome_of(reader.read, example)
        found.append((outcome, shown))
        _report({"kind": outcome.kind, "what": outcome.what})

    run()
    yield from found


_pipe: list[int] = []  # where a child reports; empty in the parent


def _report(line: dict[str, str]) -> None:
    if _pipe:
        os.write(_pipe[0], (json.dumps(line) + "\n").encode())


def tally(reader: Reader, count: int, seed: int, folder: Path) -> Tally:
    """Outcomes of `count` inputs in processes of `BATCH` each."""
    result, done = Tally(), 0
    while done < count:
        size = min(BATCH, count - done)
        # A process that died has run fewer inputs; the next one continues with another seed.
        done += max(1, _batch(reader, size, seed + done, folder, result))
    return result


def _batch(reader: Reader, count: int, seed: int, folder: Path, result: Tally) -> int:
    """Run one process and add its outcomes; returns the number of its inputs."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.close(receive)
        _child(reader, count, seed, folder, send)
    os.close(send)
    seen, example = 0, ""
    for line in _lines(receive, child):
        if "example" in line:
            example = line["example"]
            continue
        result.add(Outcome(**line), example)
        seen, example = seen + 1, ""
    _, status = os.waitpid(child, 0)
    if status and example:
        result.add(Outcome(KILLED, f"exit {os.waitstatus_to_exitcode(status)}"), example)
        seen += 1
    elif status and not seen:
        raise RuntimeError(f"the process ended before its first input, status {status}")
    # Fewer inputs than asked for: the strategy has no more.
    return seen if status else count


def _lines(receive: int, child: int) -> Iterator[dict[str, str]]:
    """What a process reports; one that is silent for long is killed, which is its outcome."""
    with os.fdopen(receive, "rb", buffering=0) as pipe:
        rest = b""
        while True:
            ready, _, _ = select.select([pipe], [], [], 4 * SECONDS)
            if not ready:
                os.kill(child, signal.SIGKILL)
            content = pipe.read(2**16)
            if not content:
                return
            *whole, rest = (rest + content).split(b"\n")
            yield from map(json.loads, whole)


def _child(reader: Reader, count: int, seed: int, folder: Path, send: int) -> None:
    """The body of a process, which never returns."""
    code = 1
    try:
        os.chdir(folder)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _pipe.append(send)
        list(run_examples(reader, count, seed))
        code = 0
    except BaseException as error:
        _report({"example": "", "error": str(error)[:200]})
    finally:
        sys.stdout.flush()
        os._exit(code)
