"""Random inputs for every reader and option: a result or one line. `python -m tools.fuzz` is the long form."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arlm.errors import UserError
from tools.fuzz.batches import KILLED, tally
from tools.fuzz.originals import write_originals
from tools.fuzz.outcomes import FAILURES, LATE, MEMORY, REFUSED, RESULT, TRACEBACK, outcome_of
from tools.fuzz.readers import DATA, Reader, readers

# Inputs of the fast suite, fewer where one takes longer.
FEW = {"configuration": 6, "metrics": 6, "data module": 15, "options": 30}
NAMES = (
    *("checkpoint, bytes", "checkpoint, entries", "tokenizer", "text", "image", "idx", "midi"),
    *("data file", "configuration", "metrics", "data module", "processors", "options"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The originals; the working folder for the tests of this file."""
    folder, before = tmp_path_factory.mktemp("fuzz"), Path.cwd()
    os.chdir(folder)
    write_originals(folder)
    yield folder
    os.chdir(before)


def fuzz(reader: Reader, examples: int, seconds: float) -> None:
    """Read so many inputs, the same in every run; a failure is reported with a minimal input."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.inputs)
    def run(example: Any) -> None:
        outcome = outcome_of(reader.read, example, seconds)
        assert outcome.kind not in FAILURES, outcome

    run()


def test_every_reader_is_here(folder: Path) -> None:
    found = readers(folder)
    assert tuple(found) == NAMES
    assert sum(one.share for one in found.values()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_a_result_or_one_line(name: str, folder: Path) -> None:
    fuzz(readers(folder)[name], FEW.get(name, 40), seconds=60)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_result_or_one_line_for_many(name: str, folder: Path) -> None:
    assert tally(readers(folder)[name], 20 * FEW.get(name, 100), 1, folder).failures == {}


@pytest.mark.parametrize("name", DATA)
def test_the_original_arguments_are_a_result(name: str, folder: Path) -> None:
    """Otherwise what is made of them would be refused for another reason than the edit."""
    read = readers(folder)["data module"].read
    given = {"class_path": f"datamodules.{name}", "init_args": DATA[name]}
    assert outcome_of(read, given).kind == RESULT


@pytest.mark.parametrize(
    ("name", "files"),
    {
        "checkpoint, bytes": ("rnn.ckpt", "image.ckpt", "pair.ckpt"),
        "tokenizer": ("tokenizer.json",),
        "text": ("note.txt", "note.txt.gz", "pairs.txt"),
        "idx": ("labels.idx",),
        "midi": ("music.mid",),
        "data file": ("data.yaml",),
        "configuration": ("config.yaml",),
        "metrics": ("metrics.csv",),
    }.items(),
)
def test_the_originals_are_results(name: str, files: tuple[str, ...], folder: Path) -> None:
    for file in files:
        outcome = outcome_of(readers(folder)[name].read, (folder / file).read_bytes())
        assert outcome.kind == RESULT, outcome


def misbehave(kind: str) -> None:
    """A reader with every fault."""
    if kind == "error":
        raise KeyError(kind)
    if kind == "line":
        raise UserError("x: wrong; mend it")
    if kind == "hangs":
        while True:
            time.sleep(0.01)
    if kind == "grows":
        torch.zeros(2**50)
    if kind == "dies":
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("", RESULT), ("line", REFUSED), ("error", TRACEBACK), ("hangs", LATE), ("grows", MEMORY)],
)
def test_what_becomes_of_an_input(kind: str, expected: str) -> None:
    assert outcome_of(misbehave, kind, seconds=0.2).kind == expected


def test_a_process_that_dies_is_an_outcome(folder: Path) -> None:
    reader = Reader(st.sampled_from(("", "line", "error", "dies")), misbehave, 1.0)
    found = tally(reader, 12, 0, folder)
    assert found.counts[KILLED] > 0
    assert found.counts[TRACEBACK] > 0
    assert found.counts.total() >= 12
    assert {failure.split()[0] for failure in found.failures} == {KILLED, TRACEBACK}
    assert set(found.failures.values()) == {"'dies'", "'error'"}
