"""Kills and signals at random instants of a run, which is resumed until it ends and compared with one that was let alone."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.faults.children import Child, Ended
from tools.faults.references import TEMPORARY, Reference, finish, judged
from tools.faults.table import Table


@dataclass(frozen=True)
class Interruption:
    """A signal, sent `times` times, at a random instant or while a file is being written."""

    name: str
    number: int
    times: int = 1
    writing: bool = False

    @property
    def codes(self) -> tuple[int, ...]:
        """The exit codes that are right: a shell shows the last two alike, and a signal may come after the end."""
        return (0, 128 + self.number, -self.number)


INTERRUPTIONS = (
    Interruption("SIGKILL", signal.SIGKILL),
    Interruption("SIGKILL while a file is written", signal.SIGKILL, writing=True),
    Interruption("SIGTERM", signal.SIGTERM),
    Interruption("SIGINT", signal.SIGINT),
    Interruption("SIGINT twice", signal.SIGINT, times=2),
    Interruption("SIGHUP", signal.SIGHUP),
    Interruption("SIGTERM while a file is written", signal.SIGTERM, writing=True),
)


def inject(
    table: Table, work: Path, noise: random.Random, times: int, wholes: Sequence[Reference]
) -> None:
    """Interrupt runs of every family in turn, `times` times in all at least; a run that ended before does not count."""
    for interruption in INTERRUPTIONS:
        for whole in wholes:  # the rows of the table in this order
            table.injected(interruption.name, whole.name, 0)
    turn = hits = 0
    while hits < times and turn < 3 * times:
        interruption = INTERRUPTIONS[(turn // len(wholes)) % len(INTERRUPTIONS)]
        hits += interrupt(table, work / "run", wholes[turn % len(wholes)], interruption, noise)
        turn += 1


def interrupt(
    table: Table, folder: Path, whole: Reference, interruption: Interruption, noise: random.Random
) -> int:
    """Interrupt a run once or twice, and finish it; returns how many interruptions hit a running process."""
    whole.copy(folder)
    planned, hits = noise.choice((1, 1, 2)), 0

    def strike(command: list[str]) -> Ended | None:
        nonlocal hits
        if hits == planned:
            return None
        hit, ended = struck(command, folder, interruption, whole.seconds, noise)
        hits += hit
        if hit:
            table.injected(interruption.name, whole.name)
        harm = judged(ended, interruption.codes)
        if harm:
            table.harm(interruption.name, whole.name, *harm)
        return ended

    finish(table, interruption.name, whole, folder, strike)
    return hits


def struck(
    command: Sequence[str],
    folder: Path,
    interruption: Interruption,
    seconds: float,
    noise: random.Random,
) -> tuple[bool, Ended]:
    """Run a command and interrupt it; returns whether it was still running, and how it ended."""
    child = Child(command, folder)
    until = child.started + noise.uniform(0.15, 0.85) * seconds
    while time.monotonic() < until and child.running():
        time.sleep(0.001)
    if interruption.writing:
        while child.running() and not any(folder.glob(f"runs/*/*/checkpoints/{TEMPORARY}")):
            pass
        time.sleep(noise.uniform(0, 0.003))
    hit = child.running()
    for _ in range(interruption.times):
        child.send(interruption.number)
        time.sleep(noise.choice((0.0, 0.01, 0.05)))
    return hit, child.wait()
