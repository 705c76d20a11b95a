"""What the system refuses while a verb runs (files, the standard output, memory), in one line."""

from __future__ import annotations

import errno
import os
import re
import sys

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
    if isinstance(error, RuntimeError) and (found := KILLED.search(str(error))):
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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch says that an allocation failed, on the CPU or on a GPU."""
    message = str(error) if isinstance(error, RuntimeError) else ""
    return "can't allocate memory" in message or "out of memory" in message


def discard_output() -> None:
    """Send what was printed and cannot be written to nowhere, since Python would try it again at its end."""
    if sys.stdout is None:  # closed by the caller
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
