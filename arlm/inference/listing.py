"""What the runs of a folder are, and what one checkpoint holds, without building networks or importing Lightning."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from arlm.checkpoints import Summary, choose, printable, read, summarise
from arlm.checkpoints.archive import user_errors
from arlm.checkpoints.describe import PREFIX
from arlm.checkpoints.sharded import is_checkpoint
from arlm.errors import UserError


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """All versions of all runs in a folder, oldest first.

    Returns:
        for each: run (its path), network, data, step, seconds, figure (name of the figures), last, best, saved
        (date, local time), newest (whether it is the newest of all), checkpoint (which one it means); values
        that are unknown are None. A version whose checkpoint cannot be read has `error` instead.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"folder: '{folder}' does not exist; train first, or name a folder of runs")
    versions: dict[Path, list[Path]] = {}
    for path in sorted(filter(is_checkpoint, folder.rglob("*.ckpt")), key=_saved):
        versions.setdefault(path.parent, []).append(path)
    ordered = sorted(versions.items(), key=lambda version: _saved(version[1][-1]))
    rows = [_row(*version) for version in ordered]
    for row in rows:
        row["newest"] = row is rows[-1]
    return rows


def _saved(path: Path) -> float:
    """When a file was written."""
    return path.stat().st_mtime


def _row(folder: Path, files: list[Path]) -> dict[str, Any]:
    """One version, from the checkpoints in its folder, oldest first."""
    newest = files[-1]
    run = folder.parent if folder.name == "checkpoints" else folder
    saved = datetime.fromtimestamp(_saved(newest)).isoformat(" ", "minutes")
    row = {"run": str(run), "saved": saved}
    try:
        path = choose(folder).path if any(f.stem in ("best", "last") for f in files) else newest
        best, last = summarise(path), summarise(newest)
    except UserError as error:
        return row | {"error": str(error)}
    name, figure = shown(best)
    return row | {
        "network": best.network_name,
        "data": best.data_name,
        "step": number(last.run.get("step")),
        "seconds": number(last.effort.get("seconds")),
        "figure": name,
        "last": shown(last)[1],
        "best": figure,
        "checkpoint": str(path),
    }


def shown(summary: Summary) -> tuple[str | None, float | None]:
    """The figure that people compare, by its name: bits per unit if there are any, else the monitored one."""
    figures = summary.run.get("figures")
    for name, value in (figures if isinstance(figures, dict) else {}).items():
        if name.startswith("val/bits_per_") and isinstance(value, float):
            return printable(name).removeprefix("val/"), value
    if summary.figure is None:
        return None, None
    return printable(str(summary.run.get("monitor"))).removeprefix("val/"), summary.figure


def number(value: Any) -> float | None:
    """A number that a checkpoint records; None for anything else that may be in its place."""
    return value if isinstance(value, int | float) else None


def show(path: str | Path) -> dict[str, Any]:
    """What a checkpoint says of its network, its data and its training, as plain values.

    Args:
        path: a .ckpt file, or the folder or the name of a run.
    """
    file = choose(path).path
    summary = summarise(file)
    with user_errors(file):
        counts = parts({k: v for k, v in read(file)["state_dict"].items() if k.startswith(PREFIX)})
    data = dict(summary.data)
    return {
        "checkpoint": str(file),
        "network": summary.network | {"parameters": sum(counts.values()), "parts": counts},
        "provenance": data.pop("provenance", {}),
        "data": data,
        "training": {
            name: summary.run.get(name)
            for name in ("objective", "step", "epoch", "plan", "saved", "command")
        }
        | {name: summary.effort.get(name) for name in ("tokens", "seconds")},
        "figures": summary.run.get("figures") or {},
        "versions": summary.run.get("versions") or {},
    }


def parts(weights: dict[str, Tensor]) -> dict[str, int]:
    """Numbers in each part of a network, such as "embed" and "blocks"; tied weights count once, where they come first."""
    counts: dict[str, int] = {}
    seen = set()
    for name, weight in weights.items():
        part = name.removeprefix(PREFIX).partition(".")[0]
        place = weight.untyped_storage().data_ptr(), weight.storage_offset()
        counts.setdefault(part, 0)
        if place not in seen or not weight.numel():
            counts[part] += weight.numel()
        seen.add(place)
    return counts
