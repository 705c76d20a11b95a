"""Runs that were let alone, and how a run that met a fault is resumed and compared with them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.faults.children import Ended, run
from tools.faults.families import FAMILIES, Family
from tools.faults.outcome import checkpoint, differences, newest
from tools.faults.table import Harm, Table

RESUMES = 4  # a run that has not ended after so many resumes makes no progress
TEMPORARY = "*.tmp*"


@dataclass(frozen=True)
class Reference:
    """A run that was let alone.

    Attributes:
        family: what was trained.
        folder: where; its run is in runs/run, its prepared corpora are in cache/.
        command: that trained it, and trains it in any copy of the folder.
        seconds: that it took.
    """

    family: Family
    folder: Path
    command: list[str]
    seconds: float

    @property
    def name(self) -> str:
        """The name of the family."""
        return self.family.name

    @property
    def runs(self) -> Path:
        """The folder of its run."""
        return self.folder / "runs"

    def checkpoint(self, name: str = "best.ckpt") -> Path:
        """The path of one of its checkpoints."""
        path = newest(self.runs, name)
        assert path is not None, f"the reference of {self.name} has no {name}"
        return path

    def copy(self, folder: Path) -> Path:
        """Make a folder with its texts and its configuration."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("cache", "runs"))
        return folder


def references(table: Table, work: Path, families: Sequence[Family] = FAMILIES) -> list[Reference]:
    """Let a run of each family end by itself, twice; both have to be equal, with figures of their own weights."""
    return [reference(table, work, family) for family in families]


def reference(table: Table, work: Path, family: Family) -> Reference:
    """Let a run of one family end by itself."""
    folder = work / family.name.replace(" ", "-")
    command = family.prepare(folder)
    once(command, folder)  # this one prepares the corpus, so the other one's time is that of a run
    first = folder.with_name(f"{folder.name}-first")
    shutil.copytree(folder, first)
    shutil.rmtree(folder / "runs")
    started = time.monotonic()
    once(command, folder)
    whole = Reference(family, folder, command, time.monotonic() - started)
    fault = "no fault"
    table.injected(fault, family.name)
    for difference in differences(first / "runs", whole.runs)[:1]:
        table.harm(fault, family.name, "wrong", difference)
    record = checkpoint(whole.checkpoint())["run"]
    if record["validated"] != record["step"]:
        detail = f"best.ckpt has the figure of step {record['validated']} and the weights of step {record['step']}"
        table.harm(fault, family.name, "wrong", detail)
    return whole


def once(command: Sequence[str], folder: Path) -> None:
    """Run a command that has to succeed, since everything else is compared with what it leaves."""
    ended = run(command, folder)
    if ended.code:
        raise RuntimeError(f"{' '.join(command)} fails by itself in {folder}: {ended.err}")


def last_lines(ended: Ended) -> str:
    """What a process said last, in one line."""
    return " ".join(ended.err.split("\n")[-4:]).strip()[-240:]


def judged(ended: Ended, codes: Sequence[int] = (0,)) -> tuple[Harm, str] | None:
    """The harm that a process shows by its end alone, if any.

    Args:
        ended: the process.
        codes: the exit codes that are right.
    """
    if ended.hung:
        return "hung", f"still runs after its limit: {last_lines(ended)}"
    if ended.traceback:
        return "tracebacks", last_lines(ended)
    if ended.code not in codes or (ended.code == 2 and not ended.refused):
        return "wrong", f"exit code {ended.code}: {last_lines(ended)}"
    return None


def finish(
    table: Table,
    fault: str,
    whole: Reference,
    folder: Path,
    strike: Callable[[list[str]], Ended | None] = lambda command: None,
    strict: bool = True,
) -> None:
    """Resume a run until it ends, and compare what it leaves with the reference.

    Args:
        table: counts the harm.
        fault: that the run has met.
        whole: the run that was let alone.
        folder: a copy of its folder, with the run that met the fault.
        strike: runs the command of a resume itself, with another fault; None runs it without.
        strict: compare metrics.csv too.
    """
    for _ in range(RESUMES):
        ended = strike(resumption(whole, folder))
        struck = ended is not None
        if ended is None:
            ended = run(resumption(whole, folder), folder)
            harm = judged(ended)
            if harm:
                kind: Harm = "lost" if harm[0] == "wrong" else harm[0]
                table.harm(fault, whole.name, kind, f"the resumed run: {harm[1]}")
                return
        if ended.code == 0:
            break
        assert struck
    else:
        table.harm(fault, whole.name, "lost", f"the run has not ended after {RESUMES} resumes")
        return
    found = differences(whole.runs, folder / "runs", strict)
    if found:
        table.harm(fault, whole.name, "lost", "; ".join(dict.fromkeys((found[0], found[-1]))))
    rest = [path.name for path in folder.glob(f"runs/**/{TEMPORARY}")]
    if rest:
        table.harm(fault, whole.name, "wrong", f"temporary files stay: {rest[0]}")


def resumption(whole: Reference, folder: Path) -> list[str]:
    """The command that continues the run of a folder; where nothing was saved yet, that of a new run."""
    if any(folder.glob("runs/**/last.ckpt")):
        return [*whole.command, "--resume"]
    shutil.rmtree(folder / "runs", ignore_errors=True)
    return whole.command
