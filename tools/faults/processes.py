"""Several processes: killed workers and ranks, two runs in one folder, two preparations of one corpus."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from tools.faults.children import Child, Ended
from tools.faults.interruptions import INTERRUPTIONS, Interruption
from tools.faults.outcome import differences
from tools.faults.references import Reference, finish, judged, resumption
from tools.faults.table import Table

SURVIVES = 120.0  # seconds that a rank may take to see that another one is gone
RESUMES = 3
TWO = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]


def inject(
    table: Table, work: Path, noise: random.Random, times: int, wholes: Sequence[Reference]
) -> None:
    """Each of the faults below in turn, on each family in turn."""
    faults: list[Callable[[Table, Path, Reference, random.Random], None]] = [
        kill_loader_worker,
        two_runs,
        two_resumes,
        interrupt_ranks,
        two_preparations,
        kill_preparation_worker,
    ]
    by_name = {whole.name: whole for whole in wholes}
    texts = [by_name[name] for name in ("continuous streams", "windows") if name in by_name]
    for turn in range(times):
        fault, round_ = faults[turn % len(faults)], turn // len(faults)
        pool = texts if fault in (two_preparations, kill_preparation_worker) else wholes
        if pool:
            fault(table, work / "run", pool[round_ % len(pool)], noise)


def kill_loader_worker(table: Table, folder: Path, whole: Reference, noise: random.Random) -> None:
    """Kill one of the two processes that prepare batches."""
    fault = "data-loader worker killed"
    whole.copy(folder)
    child = Child([*whole.command, "--data.num_workers", 2], folder)
    table.injected(fault, whole.name, strike_worker(child, noise))
    harm = judged(child.wait(), (0, 1, 2))  # 0: the run did not need it any more
    if harm:
        table.harm(fault, whole.name, *harm)
    finish(table, fault, whole, folder)


def kill_preparation_worker(
    table: Table, folder: Path, whole: Reference, noise: random.Random
) -> None:
    """Kill one of the processes that prepare a corpus, which short texts do without."""
    from arlm.data.corpus import preparation

    fault = "corpus-preparation worker killed"
    whole.copy(folder)
    child = Child(whole.command, folder, prepare=partial(setattr, preparation, "ALONE", 0))
    table.injected(fault, whole.name, strike_worker(child, noise))
    harm = judged(child.wait(), (0, 2))
    if harm:
        table.harm(fault, whole.name, *harm)
    finish(table, fault, whole, folder)


def strike_worker(child: Child, noise: random.Random) -> int:
    """Kill a process that a command has started; returns 1, or 0 if all had ended before.

    Raises:
        RuntimeError: it starts none, so that there is nothing to attack.
    """
    while child.running() and not descendants(child.pid):
        time.sleep(0.005)
    if not child.running():
        raise RuntimeError(f"{' '.join(child.arguments)} has started no worker")
    # Python's resource tracker, which is no worker, looks like one until it runs its own program.
    time.sleep(noise.uniform(0.03, 0.4))
    workers = descendants(child.pid)
    with suppress(ProcessLookupError, IndexError):
        os.kill(noise.choice(workers), signal.SIGKILL)
        return 1
    return 0


def descendants(pid: int) -> list[int]:
    """The processes that a process has started and that have started another program or do its work."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                helper = b"resource_tracker" in (entry / "cmdline").read_bytes()
                if parent == pid and not helper:
                    found.append(int(entry.name))
    return found


def together(
    table: Table, fault: str, whole: Reference, children: Sequence[Child], codes: Sequence[int]
) -> None:
    """Wait for processes that run at the same time."""
    table.injected(fault, whole.name)
    for ended in [child.wait() for child in children]:
        harm = judged(ended, codes)
        if harm:
            table.harm(fault, whole.name, *harm)


def two_runs(table: Table, folder: Path, whole: Reference, noise: random.Random) -> None:
    """Start one run twice, in one folder of runs and with one folder of checkpoints."""
    fault = "two runs in one folder"
    whole.copy(folder)
    shared = [*whole.command, "--checkpoint.dirpath", "runs/shared"]
    children = [Child(shared, folder)]
    time.sleep(noise.choice((0, 0.05, 0.3)))
    children.append(Child(shared, folder))
    together(table, fault, whole, children, (0, 2))
    for difference in differences(whole.runs, folder / "runs" / "shared", strict=False)[:1]:
        table.harm(fault, whole.name, "lost", difference)


def two_resumes(table: Table, folder: Path, whole: Reference, noise: random.Random) -> None:
    """Kill a run, and resume it twice at the same time; one may be refused."""
    fault = "two resumes of one run"
    whole.copy(folder)
    child = Child(whole.command, folder)
    time.sleep(noise.uniform(0.5, 0.9) * whole.seconds)
    child.send(signal.SIGKILL)
    child.wait()
    command = resumption(whole, folder)
    together(table, fault, whole, [Child(command, folder) for _ in range(2)], (0, 2))
    finish(table, fault, whole, folder, strict=False)


def two_preparations(table: Table, folder: Path, whole: Reference, noise: random.Random) -> None:
    """Start two runs that need one corpus, which is not prepared; one of them may be killed."""
    kills = noise.random() < 0.5
    fault = f"two preparations of one corpus{', one killed' if kills else ''}"
    whole.copy(folder)
    first, second = (
        Child([*whole.command, "--run-name", name], folder) for name in ("first", "second")
    )
    if kills:
        time.sleep(noise.uniform(0.2, 0.7) * whole.seconds)
        first.send(signal.SIGKILL)
        first.wait()
    together(table, fault, whole, [second] if kills else [first, second], (0,))
    for name in ("second",) if kills else ("first", "second"):
        for difference in differences(whole.runs, folder / "runs" / name)[:1]:
            table.harm(fault, whole.name, "lost", f"the {name} run: {difference}")


def ranks(command: Sequence[str], folder: Path) -> list[Child]:
    """Start the two processes of a run, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def prepare(rank: int) -> None:
        os.environ.update(
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), NODE_RANK="0", LOCAL_RANK=str(rank)
        )

    return [Child([*command, *TWO], folder, prepare=partial(prepare, rank)) for rank in range(2)]


_two: dict[Path, Reference] = {}  # runs of two processes that were let alone


def two_process_reference(whole: Reference) -> Reference:
    """The same run on two processes, let alone once."""
    if whole.folder not in _two:
        folder = whole.copy(whole.folder.with_name(f"{whole.folder.name}-two-processes"))
        started = time.monotonic()
        ended = [child.wait(SURVIVES) for child in ranks(whole.command, folder)]
        if any(each.code for each in ended):
            raise RuntimeError(f"two processes fail by themselves: {[each.err for each in ended]}")
        _two[whole.folder] = Reference(
            whole.family, folder, whole.command, time.monotonic() - started
        )
    return _two[whole.folder]


def interrupt_ranks(table: Table, folder: Path, whole: Reference, noise: random.Random) -> None:
    """Kill one of two ranks, or send both a signal; the rest ends by itself, and the run is resumed."""
    two = two_process_reference(whole)
    kills = noise.random() < 0.5
    interruption = noise.choice(
        [
            each
            for each in INTERRUPTIONS
            if not each.writing and (each.number == signal.SIGKILL) == kills
        ]
    )
    fault = f"two processes: {'one is killed' if kills else f'{interruption.name} to both'}"
    two.copy(folder)
    for attempt in range(RESUMES):
        children = ranks(resumption(two, folder), folder)
        if not attempt:
            time.sleep(noise.uniform(0.3, 0.95) * two.seconds)
            while kills and children[0].running() and not any(folder.glob("runs/*/version_*")):
                time.sleep(0.01)  # a launcher ends the ranks that wait for one that was killed
            send(children, interruption, noise, kills)
            table.injected(fault, whole.name)
        ended = [child.wait(SURVIVES) for child in children]
        if all(each.code == 0 for each in ended):
            break
        report(table, fault, whole, ended, interruption, attempt > 0)
    else:
        table.harm(fault, whole.name, "lost", f"the run has not ended after {RESUMES} resumes")
        return
    for difference in differences(two.runs, folder / "runs")[:1]:
        table.harm(fault, whole.name, "lost", difference)


def send(
    children: Sequence[Child], interruption: Interruption, noise: random.Random, kills: bool
) -> None:
    """Send a signal to one rank, or to all."""
    for child in [noise.choice(children)] if kills else children:
        for _ in range(interruption.times):
            child.send(interruption.number)


def report(
    table: Table,
    fault: str,
    whole: Reference,
    ended: Sequence[Ended],
    interruption: Interruption,
    resumed: bool,
) -> None:
    """Count how the ranks of a run ended that did not end well."""
    codes = (0,) if resumed else (*interruption.codes, 1, 2)
    for rank, each in enumerate(ended):
        harm = judged(each, codes)
        if harm:
            table.harm(fault, whole.name, harm[0], f"rank {rank}: {harm[1]}")
