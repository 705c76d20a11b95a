"""What a checkpoint records of its training, without building the network or importing Lightning."""

from __future__ import annotations

from pathlib import Path

from arlm import checkpoints


def describe_checkpoint(path: Path) -> str:
    """One line that says which checkpoint a verb reads: its path and step."""
    contents = checkpoints.read(path)
    return f"{path}: step {contents.get('global_step', 'unknown')}"
