"""What a checkpoint records of its training, without building the network or importing Lightning."""

from __future__ import annotations

from pathlib import Path

from arlm.checkpoints import Summary, choose, printable, summarise


def describe_checkpoint(path: str | Path) -> str:
    """One line on the checkpoint that a path means: file, step, network, data, figure, what was passed over.

    Args:
        path: a .ckpt file, or the folder or the name of a run.
    """
    choice = choose(path)
    summary = summarise(choice.path)
    parts = []
    if isinstance(step := summary.run.get("step"), int):
        parts.append(f"step {step}")
    parts += [f"{summary.network_name} on {summary.data_name}", shown_figure(summary)]
    if choice.versions > 1:
        parts.append(f"the best of {choice.versions} versions")
    line = f"{choice.path}: {', '.join(part for part in parts if part)}"
    others = [f"{_version(s)} ({s.network_name} on {s.data_name})" for s in choice.others]
    others += [f"{path} (damaged)" for path in choice.damaged]
    return f"{line}; passed over: {', '.join(others)}" if others else line


def shown_figure(summary: Summary) -> str:
    """The monitored figure of a checkpoint, and its bits per unit, for people; empty if it has none."""
    if summary.figure is None:
        return ""
    monitor = printable(str(summary.run.get("monitor")))
    figures = {monitor: summary.figure}
    recorded = summary.run.get("figures")
    for name, value in (recorded if isinstance(recorded, dict) else {}).items():
        if name.startswith("val/bits_per_") and isinstance(value, float):
            figures[printable(name)] = value
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def _version(summary: Summary) -> Path:
    """The folder of a run's version, for a checkpoint in its folder `checkpoints`."""
    folder = summary.path.parent
    return folder.parent if folder.name == "checkpoints" else summary.path
