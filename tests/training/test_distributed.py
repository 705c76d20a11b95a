"""Sums and counts are divided once: over processes and over accumulated batches, as in one large batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from conftest import ROOT
from distributed import train
from torch import Tensor, distributed

from arlm.errors import UserError
from arlm.training import accumulation
from arlm.training.accumulation import AccumulatedLoss, rescale_gradients
from arlm.training.objectives import Terms

PRECISION = 1e-9  # relative and absolute, of gradients and weights in float64
LOGGED = 1e-6  # of logged figures, which are float32
Result = dict[str, Any]


# Options of runs on one process, and what differs for each of two.
EQUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "windows": ({"given": {"batch_size": 8}}, {"given": {"batch_size": 4}}),
    "continuous": ({"given": {"batch_size": 8}}, {"given": {"batch_size": 4}}),
    "documents": ({"given": {"batch_size": 8}}, {"given": {"batch_size": 4}}),
    "pairs": ({"given": {"batch_tokens": 120}}, {"given": {"batch_tokens": 60}}),
    "conversations": ({"given": {"batch_tokens": 400}}, {"given": {"batch_tokens": 200}}),
    "accumulated": (
        {"kind": "windows", "given": {"batch_size": 8}},
        {"kind": "windows", "given": {"batch_size": 2}, "accumulate_grad_batches": 2},
    ),
}
# Runs of two processes with dropout that are stopped after a batch and resumed: in the middle of an epoch, and of
# accumulated batches.
STOPPED: dict[str, dict[str, Any]] = {
    "windows": {"given": {"batch_size": 4}, "stop": 7},
    "continuous": {"given": {"batch_size": 4}, "stop": 7},
    "documents": {"given": {"batch_size": 4}, "stop": 7},
    "pairs": {"given": {"batch_tokens": 60}, "stop": 7},
    "accumulated": {
        **{"kind": "continuous", "given": {"batch_size": 2}},
        **{"accumulate_grad_batches": 3, "stop": 20},
    },
}
TWO = {"strategy": "ddp", "devices": 2}  # over gloo
SHARDED = {"strategy": "fsdp2", "devices": 2}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The results of all runs on two processes, by name."""
    folder = tmp_path_factory.mktemp("two")
    jobs = {name: {"kind": name} | options | TWO for name, (_, options) in EQUAL.items()}
    for name, options in STOPPED.items():
        path = str(folder / f"{name}.ckpt")
        first = {"kind": name, "dropout": 0.2} | options | TWO
        whole = {key: value for key, value in first.items() if key != "stop"}
        jobs[f"{name} whole"] = whole
        jobs[f"{name} stopped"] = first | {"path": path}
        jobs[f"{name} resumed"] = whole | {"resume": path}
    for kind in ("windows", "continuous", "pairs"):
        path, given = str(folder / f"{kind} sharded.ckpt"), {"kind": kind} | EQUAL[kind][1]
        jobs[f"{kind} sharded"] = given | SHARDED
        jobs[f"{kind} sharded stopped"] = given | SHARDED | {"stop": 7, "path": path}
        jobs[f"{kind} sharded resumed"] = given | SHARDED | {"resume": path}
        # Without dropout, to be continued by one process, or under the other strategy.
        plain = given | {"stop": 7, "path": str(folder / f"{kind} plain.ckpt")}
        jobs[f"{kind} plain stopped"] = plain | TWO
    accumulated = jobs["windows sharded"] | {"accumulate_grad_batches": 2}
    accumulated["given"] = {"batch_size": 2}
    path = str(folder / "accumulated sharded.ckpt")
    jobs["accumulated sharded"] = accumulated
    jobs["accumulated sharded stopped"] = accumulated | {"stop": 11, "path": path}
    jobs["accumulated sharded resumed"] = accumulated | {"resume": path}
    path = str(folder / "windows plain.ckpt")
    jobs["windows plain to sharded"] = jobs["windows sharded"] | {"resume": path}
    return run_on_two(folder, jobs) | {"folder": folder}


@pytest.fixture
def alone() -> Iterator[None]:
    """Leave the process as it was after a run with a process group of its own."""
    with patch.dict(os.environ, {"MASTER_PORT": "0"}):
        yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


def run_on_two(folder: Path, jobs: dict[str, Any]) -> Result:
    """The results of runs of `distributed.py` on two processes."""
    path, result = folder / "options.json", folder / "result.pt"
    path.write_text(json.dumps(jobs))
    command = [sys.executable, "tests/training/distributed.py", str(path), str(result)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(result, weights_only=True)


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Losses and gradient norms of 20 steps, the figures of validation after them, and the weights."""
    assert one["losses"] == pytest.approx(other["losses"], rel=LOGGED)
    assert one["validation"] == pytest.approx(other["validation"], rel=LOGGED)
    assert one["norms"] == pytest.approx(other["norms"], rel=PRECISION)
    assert one["tokens"] == other["tokens"]
    assert len(one["losses"]) == len(one["norms"]) == 20
    assert max(one["norms"]) > 0.2  # so that gradients are clipped
    for name, weight in one["weights"].items():
        assert torch.allclose(weight, other["weights"][name], PRECISION, PRECISION), name


@pytest.mark.parametrize("name", EQUAL)
def test_two_processes_are_one_with_twice_the_batch(name: str, two: Result) -> None:
    """The logged loss of training is that of all processes."""
    assert_same(train(**({"kind": name} | EQUAL[name][0])), two[name])


@pytest.mark.parametrize("name", STOPPED)
def test_a_resumed_run_on_two_processes_is_an_uninterrupted_one(name: str, two: Result) -> None:
    assert_continued(*(two[f"{name} {part}"] for part in ("whole", "stopped", "resumed")))


def assert_continued(whole: Result, stopped: Result, resumed: Result) -> None:
    """That a stopped run and its resumption are the whole run."""
    assert len(whole["norms"]) == 20
    assert 0 < len(stopped["norms"]) < 20
    assert stopped["norms"] + resumed["norms"] == pytest.approx(whole["norms"], rel=PRECISION)
    assert resumed["tokens"] == whole["tokens"] > stopped["tokens"]
    assert resumed["validation"] == pytest.approx(whole["validation"], rel=LOGGED)
    for weight, expected in zip(
        resumed["weights"].values(), whole["weights"].values(), strict=True
    ):
        assert torch.allclose(weight, expected, PRECISION, PRECISION)


@pytest.mark.parametrize("name", ["windows", "continuous", "pairs", "accumulated"])
def test_sharded_weights_are_those_of_one_process(name: str, two: Result) -> None:
    assert_same(train(**({"kind": name} | EQUAL[name][0])), two[f"{name} sharded"])


@pytest.mark.parametrize("name", ["windows", "continuous", "pairs", "accumulated"])
def test_a_resumed_sharded_run_is_an_uninterrupted_one(name: str, two: Result) -> None:
    assert_continued(*(two[f"{name} sharded{part}"] for part in ("", " stopped", " resumed")))


def test_a_run_continues_with_sharded_weights(two: Result) -> None:
    parts = ("windows sharded", "windows plain stopped", "windows plain to sharded")
    assert_continued(*(two[part] for part in parts))


@pytest.mark.parametrize("kind", ["windows", "continuous"])
@pytest.mark.parametrize("start", ["plain", "sharded"])
@pytest.mark.parametrize("strategy", ["auto", "fsdp2"])
def test_one_process_continues_a_run_of_two(
    kind: str, start: str, strategy: str, two: Result, alone: None
) -> None:
    more = {"kind": kind, "strategy": strategy, "devices": 1} | EQUAL[kind][0]
    resumed = train(**more, resume=str(two["folder"] / f"{kind} {start}.ckpt"))
    assert_continued(two[f"{kind} sharded"], two[f"{kind} {start} stopped"], resumed)


def test_a_run_does_not_continue_with_other_rows(two: Result) -> None:
    for kind, given in (("windows", {"batch_size": 4}), ("pairs", {"batch_tokens": 120})):
        with pytest.raises(UserError, match="given, but the checkpoint was trained with"):
            train(kind, given, resume=str(two["folder"] / f"{kind} plain.ckpt"))


def test_averaged_weights_cannot_be_sharded(alone: None) -> None:
    with pytest.raises(UserError, match="averaged weights are not possible under fsdp2"):
        train("windows", {"batch_size": 8}, average=True, strategy="fsdp2", devices=1)


def test_processes_draw_dropout_of_their_own(two: Result) -> None:
    contents = torch.load(two["folder"] / "windows.ckpt", weights_only=True)
    (other,) = contents["other_processes"]
    assert not torch.equal(contents["random_state"], other["random_state"])


def test_one_process_prepares_a_corpus(two: Result) -> None:
    assert two["prepared"] == [3, 0]  # three splits


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
