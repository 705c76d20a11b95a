"""The memory of the machine, for sizes that are checked before memory is taken."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

from arlm.errors import UserError

CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_memory(device: torch.device | None = None) -> int:
    """Bytes of memory that this process may take: of a GPU, or of the machine, the container and the process."""
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    found = [sys.maxsize]
    with suppress(AttributeError, ValueError, OSError):  # Windows
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in CONTAINER:
        with suppress(OSError, ValueError):  # no such file, or "max"
            found.append(int(Path(name).read_text()))
    with suppress(ImportError):  # Windows
        import resource

        found += [n for n in resource.getrlimit(resource.RLIMIT_AS) if n != resource.RLIM_INFINITY]
    return min(found)


def check_memory(
    needed: int, option: str, value: object, device: torch.device | None = None
) -> None:
    """Refuse what needs more bytes than there are, and name the option to lower."""
    there = machine_memory(device)
    if needed > there:
        raise UserError(
            f"{option}: {value} needs about {needed / 2**30:,.1f} GiB of memory, and {there / 2**30:,.1f} GiB are "
            "there; choose a smaller one"
        )
