"""Crashes of the machine: what was not synchronised with the disk is lost.

    write a.tmp, fsync a.tmp, rename a.tmp -> a, fsync folder          operations of a command, in order
                            ^ crash here                               at a random one of them

A crash is simulated in the process itself, which is killed after it has changed the files to what a disk may hold:

| content of a file since its last fsync | names since the last fsync of their folder |
|---|---|
| cut to nothing, or replaced by zeros | as they are, or as they were before |

A file system may do any of these; it never loses what an fsync has returned for.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tools.faults.children import Child, command, run
from tools.faults.references import Reference, finish, judged
from tools.faults.table import Table

FAULT = "crash of the machine, unsynchronised writes lost"
COUNT = "operations"


@dataclass
class Disk:
    """What the disk holds for certain of the files below a folder.

    Args:
        folder: whose files are watched.
        crash_at: operation before which the machine crashes; -1 for none.
        zeros: lost content is replaced by zeros and not cut.
        undo: renames whose folder was not synchronised are undone.
    """

    folder: Path
    crash_at: int
    zeros: bool = False
    undo: bool = False
    operations: int = 0
    durable: dict[int, bytes] = field(default_factory=dict)  # content by inode, at its last fsync
    renames: list[tuple[Path, Path, Path | None]] = field(default_factory=list)
    kept: int = 0  # replaced files that are kept aside, to undo their replacement

    def install(self) -> None:
        """Watch fsync and the renames of this process."""
        for path in files(self.folder):
            os.open(path, os.O_RDONLY)  # stays open, so that no other file gets its inode's number
            self.durable[path.stat().st_ino] = path.read_bytes()
        self.move = os.rename
        os.fsync = partial(self.fsync, os.fsync)
        os.replace = partial(self.rename, os.replace)
        os.rename = partial(self.rename, os.rename)

    def fsync(self, original: Callable[[Any], None], handle: Any) -> None:
        """Synchronise a file or a folder."""
        self.before()
        number = handle if isinstance(handle, int) else handle.fileno()
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        original(handle)
        if path.is_dir():
            self.renames = [entry for entry in self.renames if entry[1].parent != path]
        elif self.folder in path.parents:
            os.dup(number)  # as above
            self.durable[os.fstat(number).st_ino] = path.read_bytes()

    def rename(
        self, original: Callable[..., None], source: Any, target: Any, **options: Any
    ) -> None:
        """Rename a file or a folder."""
        self.before()
        old, new = Path(os.path.abspath(source)), Path(os.path.abspath(target))
        aside = None
        if self.folder in new.parents:
            if new.is_file():
                self.kept += 1
                aside = self.folder / f".aside-{self.kept}"
                os.link(new, aside)
            self.renames.append((old, new, aside))
        original(source, target, **options)

    def before(self) -> None:
        """Count an operation, and crash where that was asked for."""
        if self.operations == self.crash_at:
            self.crash()
        self.operations += 1

    def crash(self) -> None:
        """Leave what a disk may hold after a crash, and die."""
        if self.undo:
            for old, new, aside in reversed(self.renames):
                if new.exists():
                    self.move(new, old)
                if aside is not None:
                    os.link(aside, new)
        for path in files(self.folder):
            if path.name.startswith((".out", ".err")):
                continue
            content = path.read_bytes()
            certain = self.durable.get(path.stat().st_ino, b"")
            if content != certain:
                lost = len(content) - len(certain)
                path.write_bytes(certain + (b"\0" * lost if self.zeros else b""))
        os.kill(os.getpid(), signal.SIGKILL)


def files(folder: Path) -> list[Path]:
    """All files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def inject(
    table: Table, work: Path, noise: random.Random, times: int, wholes: Sequence[Reference]
) -> None:
    """Crash runs of every family in turn, in both variants, also while they prepare their corpus."""
    totals = {whole.name: operations(whole, work / "run") for whole in wholes}
    for turn in range(times):
        whole = wholes[turn % len(wholes)]
        folder = whole.copy(work / "run")
        disk = Disk(
            folder,
            noise.randrange(totals[whole.name]),
            zeros=bool(turn // len(wholes) % 2),
            undo=bool(turn // len(wholes) // 2 % 2),
        )
        ended = run(whole.command, folder, prepare=disk.install)
        if ended.code == 0:  # it had fewer operations than the run that was counted
            continue
        table.injected(FAULT, whole.name)
        harm = judged(ended, (-signal.SIGKILL,))
        if harm:
            table.harm(FAULT, whole.name, *harm)
        for aside in folder.glob(".aside-*"):
            aside.unlink()
        finish(table, FAULT, whole, folder, strict=False)


def operations(whole: Reference, folder: Path) -> int:
    """How many operations a run has, with the preparation of its corpus."""
    whole.copy(folder)
    disk = Disk(folder, -1)

    def call() -> int:
        disk.install()
        code = command()
        (folder / COUNT).write_text(str(disk.operations))
        return code

    Child(whole.command, folder, call=call).wait()
    return int((folder / COUNT).read_text())
