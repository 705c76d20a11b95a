"""What a run left behind, and whether it equals what another run left: bit for bit, but for times and paths."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

COMPARED = (
    "state_dict", "optimizer_states", "lr_schedulers", "random_state", "global_step", "chunk_state",
    "accumulated", "current_model_state", "averaging_state",
)  # fmt: skip
TIMED = ("seconds", "per_second", "epoch")  # columns of metrics.csv that depend on the clock
RUN = ("step", "validated", "figure", "figures")


def checkpoint(path: Path) -> dict[str, Any]:
    """The parts of a checkpoint that a resumed run has to reproduce."""
    contents = torch.load(path, map_location="cpu", weights_only=True)
    record = json.loads(contents["arlm"]["run"])
    parts = {name: contents[name] for name in COMPARED if name in contents}
    parts["averages"] = {
        name: value
        for name, value in contents["callbacks"].items()
        if "Averag" in name or "Average" in name
    }
    tokens = contents.get("effort", {}).get("tokens")
    return parts | {"run": {name: record.get(name) for name in RUN}, "tokens": tokens}


def metrics(folder: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """All rows of the metrics.csv of a run, by step and kind; a row that was written twice has to be equal."""
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for path in sorted(folder.rglob("metrics.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                values = {k: v for k, v in row.items() if v and not k.endswith(TIMED)}
                kind = "val" if any(name.startswith("val/") for name in values) else "train"
                name, value = (
                    (row["step"], kind),
                    tuple(f"{k}={v}" for k, v in sorted(values.items())),
                )
                if rows.setdefault(name, value) != value:
                    rows[name] = (*value, "and before", *rows[name])
    return rows


def differences(reference: Path, runs: Path, strict: bool = True) -> list[str]:
    """What differs between two complete runs; empty if they are equal.

    Args:
        reference, runs: folders that hold one run each, in one version or several.
        strict: compare metrics.csv too.
    """
    found = []
    for name in ("last.ckpt", "best.ckpt"):
        paths = [newest(folder, name) for folder in (reference, runs)]
        if paths[1] is None:
            found.append(f"no {name}")
            continue
        try:
            contents = [checkpoint(path) for path in paths if path is not None]
        except Exception as error:  # any: a checkpoint that cannot be read is the finding
            found.append(f"{name}: {type(error).__name__}")
            continue
        found += [f"{name}: {part}" for part in unequal(contents[0], contents[1])]
    if not strict:
        return found
    ours, theirs = metrics(reference), metrics(runs)
    missing = sorted(set(ours) - set(theirs), key=lambda key: (int(key[0]), key[1]))
    if missing:
        found.append(
            f"metrics.csv: {len(missing)} rows of {len(ours)} are missing, {missing[0]} first"
        )
    changed = [key for key in ours if key in theirs and ours[key] != theirs[key]]
    if changed:
        found.append(f"metrics.csv: {ours[changed[0]]} became {theirs[changed[0]]}")
    return found


def newest(folder: Path, name: str) -> Path | None:
    """The file of a name that was written last, below a folder."""
    return max(folder.rglob(name), key=lambda path: path.stat().st_mtime, default=None)


def unequal(first: Any, second: Any, name: str = "") -> Iterator[str]:
    """The names of the entries of two nested values that differ."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        if (
            first.shape != second.shape
            or first.dtype != second.dtype
            or not torch.equal(first, second)
        ):
            yield name
    elif isinstance(first, dict) and isinstance(second, dict):
        for key in [*first, *(key for key in second if key not in first)]:
            if key not in first or key not in second:
                yield f"{name}.{key} (missing)".lstrip(".")
            else:
                yield from unequal(first[key], second[key], f"{name}.{key}".lstrip("."))
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            yield name
        for index, pair in enumerate(zip(first, second, strict=False)):
            yield from unequal(*pair, f"{name}[{index}]")
    elif first != second and not (nan(first) and nan(second)):
        yield f"{name}: {first!r} and {second!r}"[:120]


def nan(value: Any) -> bool:
    """Whether a value is the float nan, which differs from itself."""
    return isinstance(value, float) and math.isnan(value)
