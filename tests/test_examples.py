"""Examples that are called without arguments say how they are called."""

from __future__ import annotations

import runpy
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("name", ["likelihood", "complete_image"])
def test_an_example_without_arguments_is_one_line(name: str, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"))
    assert str(ended.value).startswith(f"usage: python examples/{name}.py runs/")
    assert "\n" not in str(ended.value)
