"""A signal ends a process that waits for the others of its run, within torch's C++."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import ROOT
from torch.distributed import TCPStore

from arlm.training.interrupts import Interrupted, agreed, interrupts
from arlm.training.rendezvous import in_thread


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Whether something happens in time."""
    until = time.monotonic() + seconds
    while not done() and time.monotonic() < until:
        time.sleep(0.02)
    return done()


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_waits_for_another_one_is_stopped(number: int) -> None:
    port = free_port()
    child = os.fork()
    if not child:
        try:
            with interrupts.handled():
                in_thread(lambda: TCPStore("127.0.0.1", port, 2, True, timedelta(seconds=60)))
        except Interrupted as stopped:
            os._exit(stopped.code)
        finally:
            os._exit(0)
    ended: list[int] = []

    def waited() -> bool:
        if not ended:
            pid, status = os.waitpid(child, os.WNOHANG)
            ended.extend([os.waitstatus_to_exitcode(status)] * bool(pid))
        return bool(ended)

    try:
        assert wait_until(lambda: listens(port), 20)
        time.sleep(0.1)  # it waits now
        os.kill(child, number)
        assert wait_until(waited, 20), "the process still waits"
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert ended == [128 + number]


def test_what_the_other_thread_raises_is_raised_here() -> None:
    def fail() -> None:
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        in_thread(fail)


def test_processes_agree_on_a_signal_that_one_has_received() -> None:
    interrupts.received = signal.SIGHUP
    counts = interrupts.counts()
    interrupts.received = None
    none = interrupts.counts()
    sums = {"sum": 1.0} | {name: counts[name] + none[name] for name in counts}
    assert agreed(sums) == signal.SIGHUP
    assert sums == {"sum": 1.0}
    assert agreed(dict(none)) is None


@pytest.mark.slow
def test_fit_is_stopped_while_it_waits_for_another_process(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 10)
    port = free_port()
    options = [
        *("--data", "datamodules.text_file.TextFile", "--data.path", "text.txt"),
        *("--model.net", "LSTMLanguageModel", "--trainer.accelerator", "cpu"),
        *("--trainer.strategy", "ddp", "--trainer.devices", "2"),
    ]
    first = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    run = subprocess.Popen(
        [sys.executable, "-m", "arlm", "fit", *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NODE_RANK": "0"} | first,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert wait_until(lambda: listens(port), 100)
        time.sleep(0.5)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130
    assert err.splitlines()[-1:] == ["arlm: SIGINT: stopping; nothing has to be saved"]
