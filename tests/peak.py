"""How much memory an action takes, by the kernel's own mark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


def peak_growth(action: Callable[[], T]) -> tuple[T, int]:
    """What an action returns, and by how many bytes this process grew at most; skips where the kernel cannot tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the mark starts anew
    except OSError:
        pytest.skip("needs /proc/self/clear_refs")
    before = _status("VmRSS")
    result = action()
    return result, _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
