"""Interleaved medians: what is compared is run in turn, so that a slow minute slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def interleaved(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run of each action, after one warm-up of each."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(repeats + 1):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def median(seconds: list[float]) -> float:
    """The middle one."""
    return statistics.median(seconds)


def machine() -> str:
    """One line on what the figures were measured with."""
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, CPU"
