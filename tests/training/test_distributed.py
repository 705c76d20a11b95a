"""Sums and counts are divided once: over processes and over accumulated batches, as in one large batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

PRECISION = 1e-9  # relative and absolute, of gradients and weights in float64
LOGGED = 1e-6  # of logged figures, which are float32
TWO = {"strategy": "ddp", "devices": 2}


def trained(
    folder: Path, kind: str, data: dict[str, Any], accumulate: int = 1, **trainer: Any
) -> dict[str, Any]:
    """The result of a run of `distributed.py`."""
    options = {"kind": kind, "data": data}
    steps = {"accumulate_grad_batches": accumulate, "val_check_interval": 20 * accumulate}
    options["trainer"] = {"devices": 1} | steps | trainer
    index = len(list(folder.glob("*.json")))
    path, result = folder / f"{index}.json", folder / f"{index}.pt"
    path.write_text(json.dumps(options))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "tests/training/distributed.py", str(path), str(result)]
    given = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run(command, timeout=120, **given)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(result, weights_only=True)


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Losses and gradient norms of 20 steps, the figures of validation after them, and the weights."""
    assert one["losses"] == pytest.approx(other["losses"], rel=LOGGED)
    assert one["validation"] == pytest.approx(other["validation"], rel=LOGGED)
    assert one["norms"] == pytest.approx(other["norms"], rel=PRECISION)
    assert len(one["losses"]) == len(one["norms"]) == 20
    assert max(one["norms"]) > 0.2  # so that gradients are clipped
    for name, weight in one["weights"].items():
        mine, theirs = torch.tensor(weight).double(), torch.tensor(other["weights"][name]).double()
        assert torch.allclose(mine, theirs, PRECISION, PRECISION), name


@pytest.mark.parametrize("kind", ["windows", "continuous", "documents", "pairs"])
def test_two_processes_are_one_with_twice_the_batch(kind: str, tmp_path: Path) -> None:
    size = "batch_tokens" if kind == "pairs" else "batch_size"
    count = 60 if kind == "pairs" else 4
    one = trained(tmp_path, kind, {size: 2 * count})
    two = trained(tmp_path, kind, {size: count}, **TWO)
    assert_same(one, two)


def test_two_processes_that_accumulate_are_one_with_four_times_the_batch(tmp_path: Path) -> None:
    one = trained(tmp_path, "windows", {"batch_size": 8})
    two = trained(tmp_path, "windows", {"batch_size": 2}, accumulate=2, **TWO)
    assert_same(one, two)


def test_accumulated_windows_are_one_batch(tmp_path: Path) -> None:
    one = trained(tmp_path, "windows", {"batch_size": 8})
    four = trained(tmp_path, "windows", {"batch_size": 2}, accumulate=4)
    assert_same(one, four)


def test_accumulated_pairs_are_one_batch(tmp_path: Path) -> None:
    one = trained(tmp_path, "pairs", {"batch_tokens": 60, "join": 4})
    four = trained(tmp_path, "pairs", {"batch_tokens": 60}, accumulate=4)
    assert_same(one, four)
