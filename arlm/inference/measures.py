"""What a comparison measures of a run beside its likelihood: speed of drawing, loss by context, effort, curves."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from arlm.core import Autoregressor
from arlm.data.dataset import Rows
from arlm.data.folders import Split
from arlm.data.windows import TextDataset, TextWindows
from arlm.evaluation.paired import by_bins
from arlm.inference.scorer import score_split

CONTEXT_TOKENS = 2**17  # number of tokens from which the loss by context is computed
REPEATS, SECONDS = 5, 1.0  # of a timed call, whichever is reached first

T = TypeVar("T")


def timed(draw: Callable[[], T]) -> tuple[T, float]:
    """What a function returns, and the seconds of its fastest call after a first one that warms up.

    Machine code draws images where it can, unless `$ARLM_NATIVE` says otherwise: its start belongs to the first call,
    and the figure does not depend on what the process has drawn before.
    """
    set_here = "ARLM_NATIVE" not in os.environ
    os.environ.setdefault("ARLM_NATIVE", "1")
    try:
        return _fastest(draw)
    finally:
        if set_here:
            del os.environ["ARLM_NATIVE"]


def _fastest(draw: Callable[[], T]) -> tuple[T, float]:
    result, best, total, calls = draw(), float("inf"), 0.0, 0
    while calls < REPEATS and total < SECONDS:
        started = time.perf_counter()
        draw()
        seconds = time.perf_counter() - started
        best, total, calls = min(best, seconds), total + seconds, calls + 1
    return result, best


def by_context(
    net: Autoregressor, module: Any, split: Split, length: int
) -> list[tuple[float, float]]:
    """(tokens of context, mean nats) in disjoint windows, in bins of powers of two; [] for other data than text."""
    if not isinstance(module.dataset(split), TextDataset):
        return []
    separate = module.separate_documents
    windows = TextWindows(
        module.corpus(split), module.domain, length, length, separate_documents=separate
    )
    chosen = torch.arange(min(len(windows), max(1, CONTEXT_TOKENS // length)))
    scores = score_split(net, windows, [Rows(0, part) for part in chosen.split(16)])
    edges = [0, *(2**i for i in range(length.bit_length()))]
    return [(edge, mean) for edge, mean, _ in by_bins(scores.nats, scores.context, edges)]


def effort(contents: dict[str, Any]) -> tuple[float, float]:
    """Tokens and seconds of training that a checkpoint records; 0 for what it does not."""
    recorded = contents.get("effort")
    values = recorded if isinstance(recorded, dict) else {}
    tokens, seconds = values.get("tokens"), values.get("seconds")
    return (
        tokens if isinstance(tokens, int | float) else 0,
        seconds if isinstance(seconds, int | float) else 0.0,
    )


def parameters(net: Autoregressor) -> int:
    """Number of parameters of a network, shared ones counted once."""
    return sum(parameter.numel() for parameter in net.parameters())


def curves(metrics: Path, *columns: str) -> list[list[float]]:
    """Rows of a run's metrics.csv that have all of these columns, as numbers; [] if there is no such file."""
    if not metrics.exists():
        print(f"note: '{metrics}' is missing, so there is no learning curve", file=sys.stderr)
        return []
    rows = read_metrics(metrics)
    return [[row[name] for name in columns] for row in rows if all(name in row for name in columns)]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The numbers in each row of a run's metrics.csv, by column; cells that hold no number are left out."""
    found = []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            numbers: dict[str, float] = {}
            for name, value in row.items():
                with suppress(TypeError, ValueError):  # an empty cell, or one too many
                    numbers[name] = float(value)
            found.append(numbers)
    return found
