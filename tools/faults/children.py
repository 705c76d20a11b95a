"""Commands of arlm in forked children of this process, so that hundreds of runs pay for the imports once.

A child is the leader of a process group of its own. It has limits of time and memory, and it is killed with its
workers when it exceeds them: a hang is a result, not the end of the attack.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIMIT = 60.0  # seconds of a command; the longest one takes 5 s on a quiet core
MEMORY = 3 * 2**30  # bytes of address space that a command may take beside what its parent has
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; the negative number of the signal that killed it.
        hung: whether it exceeded its limit of time and was killed.
        out, err: what it printed.
        peak: bytes of memory at its peak.
    """

    code: int
    hung: bool
    out: str
    err: str
    peak: int

    @property
    def traceback(self) -> bool:
        """Whether it showed a traceback, a panic or an abort instead of a message."""
        return any(sign in self.out + self.err for sign in ("Traceback (most", "panicked at")) or (
            -self.code in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE)
        )

    @property
    def refused(self) -> bool:
        """Whether it refused its input as it should: exit code 2, and one line that says why."""
        lines = [line for line in self.err.splitlines() if line.startswith("arlm: error: ")]
        return self.code == 2 and len(lines) == 1 and not self.traceback


class Child:
    """A command that runs in a child process.

    Args:
        arguments: of the command line, the verb first.
        folder: its working folder; its output goes to files there.
        prepare: called in the child before the command, to inject a fault.
        call: what the child does instead of a command; returns its exit code.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        folder: Path,
        prepare: Callable[[], object] | None = None,
        call: Callable[[], int] | None = None,
    ) -> None:
        self.arguments, self.folder = [str(a) for a in arguments], folder
        self.output = [folder / f".{name}-{time.monotonic_ns()}" for name in ("out", "err")]
        self.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._become(prepare, call)
        with suppress(OSError):  # whichever of the two is first
            os.setpgid(self.pid, self.pid)

    def _become(self, prepare: Callable[[], object] | None, call: Any) -> None:
        """Be the child: run the command, and leave without the parent's handlers of the exit."""
        code = 1
        try:
            os.setpgid(0, 0)
            for path, stream in zip(self.output, (1, 2), strict=True):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(self.folder)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in SIGNALS[1:]:
                signal.signal(number, signal.SIG_DFL)
            limit_memory(MEMORY)
            sys.argv = ["arlm", *self.arguments]
            os.environ["XDG_CACHE_HOME"] = str(self.folder / "cache")
            if prepare is not None:
                prepare()
            try:
                code = command() if call is None else call()
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what follows is not arlm's
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        except KeyboardInterrupt:  # before or after `main`, which reports it by this code
            code = 128 + signal.SIGINT
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def running(self) -> bool:
        """Whether it has not ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def send(self, number: int) -> None:
        """Send it a signal; SIGKILL goes to its workers too, as they would not survive a crash of the machine."""
        with suppress(ProcessLookupError):
            (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)

    def wait(self, limit: float = LIMIT) -> Ended:
        """Wait until it ends, for `limit` seconds from its start at most."""
        while (running := self.running()) and time.monotonic() - self.started < limit:
            time.sleep(0.002)
        self.send(signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        texts = [path.read_text(errors="replace") if path.exists() else "" for path in self.output]
        for path in self.output:
            path.unlink(missing_ok=True)
        return Ended(code, running, texts[0], texts[1], usage.ru_maxrss * 1024)


def run(
    arguments: Sequence[object],
    folder: Path,
    prepare: Callable[[], object] | None = None,
    limit: float = LIMIT,
) -> Ended:
    """Run a command to its end."""
    return Child(arguments, folder, prepare).wait(limit)


def command() -> int:
    """The command line, as `python -m arlm` calls it."""
    from arlm.__main__ import main

    return main()


def limit_memory(more: int) -> None:
    """Let this process take at most `more` bytes of address space beside what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def import_arlm() -> None:
    """Import all that commands import, so that children find it in memory."""
    import torch

    torch.set_num_threads(1)
    for name in (
        "arlm.cli",
        "arlm.models",
        "arlm.adapters",
        "arlm.inference",
        "arlm.reports",
        "datamodules",
    ):
        for found in pkgutil.iter_modules(importlib.import_module(name).__path__):
            with suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(f"{name}.{found.name}")
    gc.freeze()  # children do not copy pages to mark what never becomes garbage


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Environment variables for this process and its children, for the time of a block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
