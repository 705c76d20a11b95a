"""The attack finds the faults that are planted, and none in the code as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from tools.faults.children import Ended
from tools.faults.damage import LARGEST, WAYS, Result, verdict
from tools.faults.inputs import CANARY
from tools.faults.outcome import metrics, unequal
from tools.faults.references import judged
from tools.faults.table import Table

SOUND = Ended(0, False, "result\n", "", 10**8)
REFUSED = Ended(2, False, "", "arlm: error: file: it is damaged; use another\n", 10**8)
TRACEBACK = Ended(1, False, "", "Traceback (most recent call last):\nValueError: x\n", 10**8)
environment = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_planted_faults_are_found(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests/tools/planted.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "reference": [dict.fromkeys(("lost", "executed", "hung", "tracebacks", "wrong"), 0)],
        "none": {},
        "a batch is lost": {"lost": 1},
        "no file is synchronised": {"lost": 1},
        "pickles are executed": {"executed": 1},
        "a command hangs": {"hung": 1},
    }


@pytest.mark.parametrize(
    ("ended", "harm"),
    [
        (SOUND, None),
        (REFUSED, None),
        (TRACEBACK, "tracebacks"),
        (Ended(-6, False, "", "", 0), "tracebacks"),  # aborted by a library
        (Ended(101, False, "", "thread '<unnamed>' panicked at src/lib.rs\n", 0), "tracebacks"),
        (Ended(-9, True, "", "", 0), "hung"),
        (Ended(0, False, "result\n", "", LARGEST + 1), "hung"),
        (Ended(0, False, "another result\n", "", 0), "wrong"),
        (Ended(2, False, "", "no line that begins as errors do\n", 0), "wrong"),
        (Ended(2, False, "", REFUSED.err * 2, 0), "wrong"),
        (Ended(1, False, "", REFUSED.err, 0), "wrong"),
    ],
)
def test_verdict_on_a_command_that_read_a_damaged_file(
    tmp_path: Path, ended: Ended, harm: str | None
) -> None:
    found = verdict(Result(ended, ended.out), "result\n", tmp_path)
    assert (found and found[0]) == harm
    (tmp_path / CANARY).touch()
    found = verdict(Result(ended, ended.out), "result\n", tmp_path)
    assert found is not None
    assert found[0] == "executed"


def test_exit_codes_of_signals_are_right_only_where_they_were_sent() -> None:
    interrupted = Ended(130, False, "", "stopped\n", 0)
    assert judged(interrupted, (0, 130)) is None
    assert judged(interrupted) is not None


def test_one_changed_bit_of_a_nested_value_is_seen() -> None:
    first = {"a": [torch.zeros(3), {"b": float("nan")}], "c": 1}
    second = {"a": [torch.zeros(3), {"b": float("nan")}], "c": 1}
    assert list(unequal(first, second)) == []
    second["a"][0][1] = 1e-45  # the smallest number
    assert list(unequal(first, second)) == ["a[0]"]
    assert list(unequal({"a": 1}, {"a": 1, "b": 2})) == ["b (missing)"]
    assert list(unequal([1], [1, 2])) == [""]
    assert list(unequal(torch.zeros(2), torch.zeros(2).double())) == [""]


def test_rows_of_metrics_are_those_of_all_versions_without_times(tmp_path: Path) -> None:
    for version, text in enumerate(
        [
            "step,seconds,train/nll,val/nll\n1,3.5,2.0,\n2,,,1.5\n",
            "step,seconds,train/nll,val/nll\n1,9.5,2.0,\n3,,1.0,\n",
        ]
    ):
        (tmp_path / f"version_{version}").mkdir()
        (tmp_path / f"version_{version}" / "metrics.csv").write_text(text)
    rows = metrics(tmp_path)
    assert sorted(rows) == [("1", "train"), ("2", "val"), ("3", "train")]
    assert rows["1", "train"] == ("step=1", "train/nll=2.0")
    (tmp_path / "version_2").mkdir()
    (tmp_path / "version_2" / "metrics.csv").write_text("step,train/nll\n1,2.1\n")
    assert metrics(tmp_path)["1", "train"] != rows["1", "train"]


def test_every_way_of_damage_changes_a_file() -> None:
    import random

    content = bytes(range(256)) * 4
    for way in WAYS:
        results = [way(content, random.Random(seed)) for seed in range(20)]
        assert sum(result != content for result in results) > 15, way.__name__
        assert isinstance(way(b"", random.Random(0)), bytes)


def test_the_table_adds_up_and_says_whether_there_was_harm() -> None:
    table = Table()
    table.injected("SIGKILL", "pixels", 3)
    table.injected("SIGKILL", "windows")
    assert table.harmless
    table.harm("SIGKILL", "windows", "lost", "a batch")
    assert not table.harmless
    lines = table.markdown().splitlines()
    assert lines[2:] == [
        "| SIGKILL | pixels | 3 | 0 | 0 | 0 | 0 | 0 |",
        "| SIGKILL | windows | 1 | 1 | 0 | 0 | 0 | 0 |",
        "| **all** |  | **4** | **1** | **0** | **0** | **0** | **0** |",
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("kind", "scale"),
    [
        ("interruptions", 0.5),
        ("unsynced", 0.5),
        ("damage", 0.5),
        ("crafted", 1),
        ("surroundings", 1),
        ("processes", 1),
    ],
)
def test_no_fault_does_harm(tmp_path: Path, kind: str, scale: float) -> None:
    program = (
        "import sys; from pathlib import Path; from tools.faults.__main__ import attack; "
        f"table = attack([{kind!r}], False, 1, Path({str(tmp_path)!r}), {scale}); "
        "print(table.markdown()); sys.exit(not table.harmless)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
