"""Which checkpoint a run's folder means, and what a checkpoint says of the run that wrote it.

Versions of one configuration (the same network on the same data) are ranked by the figure that they monitored.
A folder that holds several configurations means the newest of them.
"""

from __future__ import annotations

import json
import math
import os.path
from pathlib import Path
from typing import Any, NamedTuple

from arlm.checkpoints.archive import read_archive
from arlm.checkpoints.sharded import is_checkpoint
from arlm.errors import UserError

RUNS = Path("runs")  # where `fit` writes, and where the name of a run is looked up
# Options of data and networks that change neither the tokens nor how they are scored.
MEMORY = ("max_logits", "activation_checkpointing")  # of networks: memory and time only
NEUTRAL = ("batch_size", "batch_tokens", "seed", "num_workers", "data_dir", "trusted", *MEMORY)


def without_memory(description: Any) -> Any:
    """A network's description without the options that change memory and time only."""
    if isinstance(description, dict):
        return {k: without_memory(v) for k, v in description.items() if k not in MEMORY}
    if isinstance(description, list):
        return [without_memory(part) for part in description]
    return description


class Summary(NamedTuple):
    """The description in a checkpoint, without its weights."""

    path: Path
    network: dict[str, Any]  # class_path and init_args
    data: dict[str, Any]  # class_path, init_args and provenance; empty for data from outside
    # Step, figures, command, versions, ...; empty for a network that no run wrote.
    run: dict[str, Any]
    effort: dict[str, Any]  # tokens, seconds and steps of training

    @property
    def figure(self) -> float | None:
        """The monitored figure of the last validation; None if there was none, or if it is not finite."""
        value = self.run.get("figure")
        return value if isinstance(value, float) and math.isfinite(value) else None

    @property
    def identity(self) -> str:
        """Text that is equal for versions whose figures may be compared."""
        arguments = _mapping(self.data.get("init_args"))
        kept = {k: v for k, v in arguments.items() if k not in NEUTRAL}
        data = self.data | {"init_args": kept}
        monitored = self.run.get("monitor")
        return json.dumps([without_memory(self.network), data, monitored], sort_keys=True)

    @property
    def network_name(self) -> str:
        """The network's class."""
        return printable(str(self.network.get("class_path", "a network")).rpartition(".")[2])

    @property
    def data_name(self) -> str:
        """The name of the data set."""
        named = _mapping(self.data.get("provenance")).get("name")
        path = str(self.data.get("class_path", "unknown data"))
        return printable(str(named or path.rpartition(".")[2]))


class Choice(NamedTuple):
    """What a folder means: a checkpoint, and what else was there."""

    path: Path
    versions: int  # of this configuration, the chosen one included
    others: list[Summary]  # the best of each other configuration, newest first
    damaged: list[Path]


def summarise(path: Path) -> Summary:
    """Read the description in a checkpoint file."""
    contents = read_archive(path)
    network, data, run = (_parsed(contents["arlm"].get(n)) for n in ("network", "data", "run"))
    return Summary(path, network, data, run, _mapping(contents.get("effort")))


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    return _mapping(value)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def printable(text: str, longest: int = 200) -> str:
    """Text of a file that may be crafted, without control characters, in one line."""
    return "".join(c for c in text if c.isprintable())[:longest]


def named(path: str | Path) -> Path:
    """The path itself; if there is none, and a run of that name in `runs/`, the run's folder."""
    path = Path(path)
    return RUNS / path if not os.path.exists(path) and os.path.isdir(RUNS / path) else path


def find(path: str | Path) -> Path:
    """Path of a checkpoint: the file itself, or what a run's folder or name means; see `choose`."""
    return choose(path).path


def choose(path: str | Path) -> Choice:
    """The checkpoint that a path means.

    Of a folder, each version counts with its best.ckpt; last.ckpt counts only where there is no best.ckpt at
    all. Of the versions with the newest network and data, the one with the best figure is meant.

    Args:
        path: a .ckpt file, the folder of a run or of a version, or the name of a run in `runs/`.

    Raises:
        UserError: there is none.
    """
    path = named(path)
    if is_checkpoint(path):
        return Choice(path, 1, [], [])
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UserError(
            f"checkpoint: '{path}' is a pipe or a device; give a .ckpt file or a run's folder"
        )  # which could be read without end
    if not os.path.isdir(path):
        raise UserError(f"checkpoint: '{path}' does not exist; give a .ckpt file or a run's folder")
    for name in ("best.ckpt", "last.ckpt"):
        found = [p for p in path.rglob(name) if is_checkpoint(p)]
        if found:
            return _best(sorted(found, key=lambda p: p.stat().st_mtime, reverse=True))
    raise UserError(f"checkpoint: the folder '{path}' holds no best.ckpt; train first")


def _best(found: list[Path]) -> Choice:
    """Choose from files, newest first."""
    if len(found) == 1:  # a damaged file is reported by whoever reads it
        return Choice(found[0], 1, [], [])
    groups: dict[str, list[Summary]] = {}
    damaged = []
    for path in found:
        try:
            summary = summarise(path)
        except UserError:
            damaged.append(path)
            continue
        groups.setdefault(summary.identity, []).append(summary)
    if not groups:
        return Choice(found[0], 1, [], [])
    best = [min(group, key=_rank) for group in groups.values()]
    versions = len(next(iter(groups.values())))
    return Choice(best[0].path, versions, best[1:], damaged)


def _rank(summary: Summary) -> float:
    """Smaller is better; versions without a figure come last."""
    if summary.figure is None:
        return math.inf
    return -summary.figure if summary.run.get("mode") == "max" else summary.figure
