"""The study of fine-tuning refuses rows that it does not have, and rows of other settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arlm.errors import UserError
from tools.finetuning_study import main


def test_rows_of_others_are_refused(tmp_path: Path) -> None:
    for name in ("lora9", "state"):  # the latter is of the LSTM
        with pytest.raises(UserError, match=f"rows: '{name}' is none of --family transformer"):
            main([name, "--folder", str(tmp_path)])


def test_rows_keep_their_settings(tmp_path: Path, monkeypatch, capsys) -> None:
    figures = {"new": 1.0, "old": 2.0, "parameters": 3, "bytes": 4, "peak": 5.0, "seconds": 6.0}
    short = {"base_steps": 20, "batches": 2}
    for name, settings in {"base": short, "head": short | {"steps": 10}}.items():
        row = figures | {"settings": settings}
        (tmp_path / f"transformer_{name}.json").write_text(json.dumps(row))
    words = ["head", "--folder", str(tmp_path), "--batches", "2", "--base-steps", "20", "--steps"]
    main([*words, "10"])
    assert "| head | 1.0000 | 2.0000 | +0.0000 |" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--steps: 11 given, but .*head.json has 10; remove it"):
        main([*words, "11"])
    (tmp_path / "transformer_base.json").write_text(json.dumps(figures))  # of an earlier version
    with pytest.raises(UserError, match="has no settings"):
        main([*words, "10"])
