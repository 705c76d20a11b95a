"""What the system refuses, and what a killed worker leaves, is said in one line."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest
from conftest import run_arlm

from arlm.cli.failures import leave_at_once


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (MemoryError(), "memory: sample needs more than there is; lower -n"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "memory: sample needs",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "memory: sample needs"),
        (
            OSError(28, "No space left on device"),
            "output: cannot be written (No space left on device)",
        ),
        (OSError(13, "Permission denied", "a.txt"), "file: 'a.txt': Permission denied"),
        (
            RuntimeError("[/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer"),
            "processes: another process of the run has ended",
        ),
    ],
)
def test_what_the_system_refuses_is_said_in_one_line(
    error: Exception, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("arlm.cli.sample.main", refuse)
    assert part in run_arlm("sample").error()


def test_a_killed_worker_is_said_and_the_process_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left: list[int] = []

    def refuse(*_: object) -> None:
        error = KeyError("thread")  # of a clean-up that torch's handler of SIGCHLD has interrupted
        error.__context__ = RuntimeError("DataLoader worker (pid 77) is killed by signal: Killed.")
        raise error

    monkeypatch.setattr("arlm.cli.sample.main", refuse)
    monkeypatch.setattr("arlm.cli.failures.leave_at_once", left.append)
    message = "data.num_workers: a worker (pid 77) was killed"
    assert message in run_arlm("sample").error()
    assert left == [2]


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake of arlm")

    monkeypatch.setattr("arlm.cli.sample.main", fail)
    with pytest.raises(RuntimeError, match="a mistake of arlm"):
        run_arlm("sample")


class HalfMade:
    """Its destructor needs what the constructor did not come to."""

    def __del__(self) -> None:
        self.missing  # noqa: B018


@pytest.mark.parametrize("fails", [True, False])
def test_errors_beside_the_verb_are_shown_unless_the_verb_fails(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        HalfMade()
        sys.excepthook(
            EOFError, EOFError("no partner"), None
        )  # as a thread of multiprocessing does
        if fails:
            raise MemoryError

    monkeypatch.setattr("arlm.cli.configs.main", refuse)
    ended = run_arlm("configs")
    assert ended.code == (2 if fails else 0)
    assert ("'HalfMade' object has no attribute" in ended.err) == (not fails)
    assert ("no partner" in ended.err) == (not fails)
    assert len(ended.err.splitlines()) == 1 or not fails


def test_a_process_that_leaves_at_once_kills_its_workers_and_cleans_nothing_up(
    tmp_path: Path,
) -> None:
    child = os.fork()
    if not child:
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        (tmp_path / "worker").write_text(str(worker.pid))
        try:
            leave_at_once(2)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 2
    stat = Path("/proc") / (tmp_path / "worker").read_text() / "stat"
    until = time.monotonic() + 20
    while stat.exists() and ") Z " not in stat.read_text() and time.monotonic() < until:
        time.sleep(0.02)
    assert not stat.exists() or ") Z " in stat.read_text()
