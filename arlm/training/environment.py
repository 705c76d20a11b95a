"""What a run's results depend on beside its configuration: code, versions, seed, machine and data."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import arlm
from arlm.training.history import command, versions


def environment(provenance: Mapping[str, str]) -> dict[str, Any]:
    """Plain values: date, command, revision of arlm, versions, seed, machine, and the data's fingerprint.

    Args:
        provenance: of the data; its fingerprint is a checksum of what it says.
    """
    content = json.dumps(dict(provenance), sort_keys=True).encode()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "revision": revision(),
        "versions": versions(),
        "seed": os.environ.get("PL_GLOBAL_SEED"),
        "machine": machine(),
        "data": hashlib.sha256(content).hexdigest(),
    }


def machine() -> dict[str, Any]:
    """Processor, cores, threads and GPUs."""
    count = torch.cuda.device_count()
    return {
        "system": platform.platform(),
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(count)],
    }


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on Linux
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def revision() -> str | None:
    """The git revision of arlm's own source, "+" if it was changed since; None if it is no clone.

    The repository of the working folder is not asked: its configuration may name programs that git would run.
    """
    folder = Path(arlm.__file__).parent.parent
    if not (folder / ".git").exists():
        return None

    def git(*words: str) -> str:
        given = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *words]
        done = subprocess.run(given, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
