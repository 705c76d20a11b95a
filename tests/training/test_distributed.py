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
from distributed import train
from torch import Tensor

from arlm.training import accumulation
from arlm.training.accumulation import AccumulatedLoss, rescale_gradients
from arlm.training.objectives import Terms

PRECISION = 1e-9  # relative and absolute, of gradients and weights in float64
LOGGED = 1e-6  # of logged figures, which are float32
Result = dict[str, Any]


def two_processes(folder: Path, kind: str, data: dict[str, Any], **flags: Any) -> Result:
    """The result of a run of `distributed.py` with plain `ddp` over gloo."""
    path, result = folder / "options.json", folder / "result.pt"
    options = {"kind": kind, "given": data, "strategy": "ddp", "devices": 2} | flags
    path.write_text(json.dumps(options))
    command = [sys.executable, "tests/training/distributed.py", str(path), str(result)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
    )
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
        assert torch.allclose(weight, other["weights"][name], PRECISION, PRECISION), name


@pytest.mark.parametrize(
    "kind",
    [
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("windows", "documents")),
        *("continuous", "pairs"),
    ],
)
def test_two_processes_are_one_with_twice_the_batch(kind: str, tmp_path: Path) -> None:
    size, count = ("batch_tokens", 60) if kind == "pairs" else ("batch_size", 4)
    assert_same(train(kind, {size: 2 * count}), two_processes(tmp_path, kind, {size: count}))


@pytest.mark.slow
def test_two_processes_that_accumulate_are_one_with_four_times_the_batch(tmp_path: Path) -> None:
    two = two_processes(tmp_path, "windows", {"batch_size": 2}, accumulate_grad_batches=2)
    assert_same(train("windows", {"batch_size": 8}), two)


def test_accumulated_windows_are_one_batch() -> None:
    four = train("windows", {"batch_size": 2}, accumulate_grad_batches=4)
    assert_same(train("windows", {"batch_size": 8}), four)


@pytest.fixture(scope="module")
def four_at_once() -> Result:
    """Training on four batches by length at once."""
    return train("pairs", {"batch_tokens": 60, "join": 4})


def accumulated_pairs() -> Result:
    return train("pairs", {"batch_tokens": 60}, accumulate_grad_batches=4)


def test_accumulated_pairs_are_one_batch(four_at_once: Result) -> None:
    assert_same(four_at_once, accumulated_pairs())


def mean_of_means(self: AccumulatedLoss, terms: Terms, trainer: Any) -> Tensor:
    """Mutant of `add`: every batch's own mean."""
    self.totals.add(terms)
    return terms.sum / terms.count


@pytest.mark.parametrize("mutant", ["mean of means", "no rescaling", "last count", "by batches"])
def test_mutants_are_caught(
    mutant: str, four_at_once: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AccumulatedLoss.add
    if mutant == "mean of means":
        monkeypatch.setattr(AccumulatedLoss, "add", mean_of_means)
    if mutant in ("mean of means", "no rescaling"):
        monkeypatch.setattr(accumulation, "rescale_gradients", lambda *_: None)
    if mutant == "last count":

        def forget(self: AccumulatedLoss, terms: Terms, trainer: Any) -> Tensor | None:
            self.totals.values = torch.zeros_like(self.totals.values)
            return real(self, terms, trainer)

        monkeypatch.setattr(AccumulatedLoss, "add", forget)
    if mutant == "by batches":

        def rescale(parameters: Any, factor: float) -> None:
            rescale_gradients(parameters, factor / 4)

        monkeypatch.setattr(accumulation, "rescale_gradients", rescale)
    with pytest.raises(AssertionError):
        assert_same(four_at_once, accumulated_pairs())
