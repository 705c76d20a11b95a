"""What the system refuses while a verb runs (files, the standard output, memory), in one line."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

LOWER = {  # options of each verb that a lack of memory may come from
    "sample": "-n, --max-new-tokens or --beam",
    "score": "the size of FILE",
    "detect": "the size of FILE",
    "translate": "--beam, --n-best or the length of the lines",
    "attention": "the length of TEXT",
    "evaluate": "--beam, or data.batch_size in --data",
    "compare": "data.batch_size in --data",
}
TRAINER = "data.batch_size, data.length or the size of model.net"

# In what torch raises:
KILLED = re.compile(r"DataLoader worker \(pid\S* (\d+)")
LOST = re.compile(r"gloo/transport|NCCL|Connection (reset|closed) by peer")


def in_one_line(error: BaseException, verb: str) -> str | None:
    """One line for an error of the system; None for any other."""
    no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM  # of a fork
    if isinstance(error, MemoryError) or no_memory or is_out_of_memory(error):
        return f"memory: {verb} needs more than there is; lower {LOWER.get(verb, TRAINER)}"
    if found := killed_worker(error):
        return (
            f"data.num_workers: a worker (pid {found[1]}) was killed, perhaps for lack of memory; choose fewer, and "
            "go on with --resume"
        )
    if isinstance(error, RuntimeError) and LOST.search(str(error)):
        return "processes: another process of the run has ended; see what it says, and go on with --resume"
    if not isinstance(error, OSError):
        return None
    if error.filename is not None:
        return f"file: '{error.filename}': {error.strerror}; check the path and your permissions"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
        return f"system: {error.strerror or error}; check the machine and the network"
    # Files that arlm writes are named by `cannot_write`, so this is what was printed.
    return f"output: cannot be written ({error.strerror or error}); check where it goes, and the space there"


def killed_worker(error: BaseException | None) -> re.Match[str] | None:
    """What torch says of a killed worker, in an error or in those that it followed from.

    torch raises it from a handler of SIGCHLD, between any two instructions, which may be those of a clean-up.
    """
    while error is not None:
        if isinstance(error, RuntimeError) and (found := KILLED.search(str(error))):
            return found
        error = error.__cause__ or error.__context__
    return None


def leave_at_once(code: int) -> None:
    """End the process without its clean-up, which may wait for good for a lock that a killed worker held."""
    for worker in multiprocessing.active_children():
        worker.kill()
    discard_output()
    sys.stderr.flush()
    os._exit(code)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch says that an allocation failed, on the CPU or on a GPU."""
    message = str(error) if isinstance(error, RuntimeError) else ""
    return "can't allocate memory" in message or "out of memory" in message


@contextmanager
def side_errors_collected(messages: list[str]) -> Iterator[None]:
    """Collect errors that Python shows as tracebacks and ignores: those of destructors, and of the thread that
    hands tensors over to other processes.

    A signal or a killed worker leaves objects that are half made and connections without a partner.
    """

    def keep_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
        keep(unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback)

    def keep(
        kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lines = traceback.format_exception(kind, error, trace)
        messages.append(f"Exception ignored:\n{''.join(lines)}")

    before = sys.unraisablehook, sys.excepthook
    sys.unraisablehook, sys.excepthook = keep_unraisable, keep
    try:
        yield
    finally:
        sys.unraisablehook, sys.excepthook = before


def discard_output() -> None:
    """Send what was printed and cannot be written to nowhere, since Python would try it again at its end."""
    if sys.stdout is None:  # closed by the caller
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
