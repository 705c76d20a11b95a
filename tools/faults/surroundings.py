"""Full disks, folders that cannot be written, and clocks that are set back."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tools.faults.children import Child, Ended, command
from tools.faults.interruptions import Interruption, struck
from tools.faults.outcome import checkpoint
from tools.faults.references import Reference, finish, judged, last_lines, once
from tools.faults.table import Table

NEW_USER, NEW_MOUNTS = 0x10000000, 0x00020000  # CLONE_NEWUSER, CLONE_NEWNS of <sched.h>
READ_ONLY, REMOUNT, RECURSIVE, PRIVATE = 1, 32, 16384, 1 << 18  # of <sys/mount.h>
DAY = 86_400.0
VERBS: dict[str, list[tuple[list[object], str]]] = {
    # What a verb writes: its arguments, and the name of the file.
    "windows": [
        (["sample", "{run}", "-n", 200, "--out", "{out}"], "x.txt"),
        (["score", "{run}", "a.txt", "--html", "{out}"], "x.html"),
        (["compare", "a={run}", "b={run}", "--out", "{out}"], "x.html"),
        (["attention", "{run}", "text", "--out", "{out}"], "x.png"),
    ],
    "pairs": [
        (["translate", "{run}", "a.txt", "--out", "{out}"], "x.txt"),
        (["translate", "{run}", "a.txt", "--attention", "{out}"], "x.png"),
    ],
    "pixels": [
        (["sample", "{run}", "-n", 64, "--out", "{out}"], "x.png"),
        (["sample", "{run}", "-n", 64, "--gif", "{out}"], "x.gif"),
    ],
}


def inject(
    table: Table, work: Path, noise: random.Random, times: int, wholes: Sequence[Reference]
) -> None:
    """Change the surroundings of runs and of verbs, in turn."""
    mounts = can_mount(work)
    if not mounts:
        print("note: no process may mount a small disk here; no disk was full", file=sys.stderr)
    verbs = [(whole, verb) for whole in wholes for verb in VERBS.get(whole.name, [])]
    for turn in range(times):
        whole = wholes[turn // 3 % len(wholes)]
        if turn % 3 == 0:
            clock_set_back(table, work / "run", whole, noise)
        elif mounts and turn % 3 == 1:
            full_disk(table, work / "run", whole, noise)
        elif mounts and verbs:
            whole, verb = verbs[turn // 3 % len(verbs)]
            verb_without_room(table, work / "run", whole, verb, noise.random() < 0.3)


def mount(folder: Path, size: int, read_only: bool = False) -> None:
    """Put a disk of `size` bytes in the place of a folder, with its files, for this process only.

    Raises:
        OSError: the system does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def checked(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    checked(libc.unshare(NEW_MOUNTS if os.geteuid() == 0 else NEW_USER | NEW_MOUNTS))
    checked(libc.mount(b"none", b"/", None, ctypes.c_ulong(RECURSIVE | PRIVATE), None))
    content = folder.with_name(f"{folder.name}-content")
    shutil.rmtree(content, ignore_errors=True)
    shutil.copytree(folder, content)
    place, options = str(folder).encode(), f"size={size}".encode()
    checked(libc.mount(b"tmpfs", place, b"tmpfs", 0, options))
    shutil.copytree(content, folder, dirs_exist_ok=True)
    if read_only:
        checked(libc.mount(b"tmpfs", place, b"tmpfs", REMOUNT | READ_ONLY, options))


def on_disk(
    arguments: Sequence[object], folder: Path, disk: Path, size: int, read_only: bool = False
) -> Ended:
    """Run a command with a small disk at `disk`; what it leaves there is copied to the folder itself."""

    def call() -> int:
        mount(disk, size, read_only)
        try:
            return command()
        finally:
            copy = disk.with_name(f"{disk.name}-after")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(disk, copy)

    ended = Child(arguments, folder, call=call).wait()
    after = disk.with_name(f"{disk.name}-after")
    if after.exists():
        shutil.rmtree(disk)
        after.rename(disk)
    shutil.rmtree(disk.with_name(f"{disk.name}-content"), ignore_errors=True)
    return ended


def can_mount(work: Path) -> bool:
    """Whether the system lets a process mount a disk for itself."""
    folder = work / "disk"
    folder.mkdir(exist_ok=True)
    return Child([], work, prepare=partial(mount, folder, 4096), call=lambda: 0).wait().code == 0


def full_disk(table: Table, folder: Path, whole: Reference, noise: random.Random) -> None:
    """Let a run meet a full disk, or one that cannot be written; then give it room and finish it."""
    whole.copy(folder)
    (folder / "runs").mkdir()
    size = sum(path.stat().st_size for path in (whole.folder / "runs").rglob("*") if path.is_file())
    read_only = noise.random() < 0.2
    fault = "read-only folder of runs" if read_only else "disk full in a run"
    room = int(noise.uniform(0.02, 0.95) * size)
    ended = on_disk(whole.command, folder, folder / "runs", room, read_only)
    table.injected(fault, whole.name)
    harm = judged(ended, (2,))
    if harm and not (ended.code == 0 and not read_only):  # it fitted
        table.harm(fault, whole.name, *harm)
    for broken in unfinished(folder / "runs"):
        table.harm(fault, whole.name, "wrong", f"{broken.relative_to(folder)} is not whole")
    finish(table, fault, whole, folder, strict=False)


def unfinished(folder: Path) -> list[Path]:
    """Files below a folder that were not written to their end."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == "metrics.csv":
            continue
        if path.suffix == ".ckpt":
            try:
                checkpoint(path)
            except Exception:  # any
                found.append(path)
        elif not path.stat().st_size or ".tmp" in path.name:
            found.append(path)
    return found


def verb_without_room(
    table: Table, folder: Path, whole: Reference, verb: tuple[list[object], str], read_only: bool
) -> None:
    """Let a verb write to a full or read-only disk, on which an older file of that name is."""
    whole.copy(folder)
    arguments, name = verb
    disk, old = folder / "disk", b"old " * 500
    disk.mkdir()
    run, out = whole.checkpoint(), f"disk/{name}"
    given = [str(each).format(run=run, out=out) for each in arguments]
    once(given, folder)  # with room, it succeeds
    for path in disk.iterdir():
        path.unlink()
    (disk / name).write_bytes(old)
    ended = on_disk(given, folder, disk, 4096, read_only)
    fault = f"{'read-only folder' if read_only else 'disk full'}, {arguments[0]} {arguments[-2]}"
    table.injected(fault, whole.name)
    harm = judged(ended, (2,))
    content = (disk / name).read_bytes() if (disk / name).exists() else None
    fitted = ended.code == 0 and content != old
    if harm and not fitted:
        table.harm(fault, whole.name, *harm)
    if not fitted and content != old:
        table.harm(fault, whole.name, "lost", f"the older {name} is gone ({last_lines(ended)})")
    rest = sorted(path.name for path in disk.iterdir() if path.name != name)
    if rest and not fitted:
        table.harm(fault, whole.name, "wrong", f"{rest[0]} stays")


def clock_set_back(table: Table, folder: Path, whole: Reference, noise: random.Random) -> None:
    """Kill a run, kill its resume under a clock of the day before, and finish it under the right clock."""
    fault = "clock set back a day between a kill and a resume"
    whole.copy(folder)
    kill = Interruption("SIGKILL", signal.SIGKILL)
    struck(whole.command, folder, kill, whole.seconds, noise)
    table.injected(fault, whole.name)
    turns = iter([True, False])

    def strike(arguments: list[str]) -> Ended | None:
        if not next(turns, False):
            return None
        child = Child(arguments, folder, prepare=partial(set_back, folder, DAY))
        time.sleep(noise.uniform(0.3, 1.0) * whole.seconds)
        child.send(signal.SIGKILL)
        return child.wait()

    finish(table, fault, whole, folder, strike, strict=False)


def set_back(folder: Path, seconds: float) -> None:
    """Set the clock of this process back, and with it the times of the files that it writes."""
    now = time.time
    time.time = lambda: now() - seconds

    def dated(original: Callable[..., Any], source: Any, target: Any, **options: Any) -> None:
        original(source, target, **options)
        os.utime(target, (time.time(), time.time()))

    os.replace = partial(dated, os.replace)
    os.rename = partial(dated, os.rename)
