"""Who may import whom, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import ROOT

from arlm.__main__ import COMMANDS

# Each room, and the rooms that it builds on: it may import those, and whatever they may import.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "storage": set(),
    "states": {"errors"},
    "construction": set(),
    "core": {"states", "construction"},
    "programs": {"core"},
    "layers": {"programs"},
    "pixels": {"layers"},
    "models": {"pixels"},
    "tokenizers": {"core"},
    "domains": {"tokenizers"},
    "sampling": {"core"},
    "data": {"domains", "sampling", "storage"},
    "evaluation": {"core"},
    "checkpoints": {"domains", "storage"},
    "adapters": {"checkpoints", "layers"},
    "inference": {"sampling", "data", "evaluation", "adapters"},
    "reports": {"inference"},
    "training": {"reports", "layers"},
    "cli": {"training", "models"},
    "__main__": {"cli"},
    "__init__": set(),
}
LIGHTNING = {"data", "training", "cli"}


def reachable(room: str) -> set[str]:
    """The rooms that a room may import."""
    return ROOMS[room].union(*(reachable(below) for below in ROOMS[room]))


def imports(path: Path) -> set[str]:
    """Modules that a file imports when it is run, wherever in the file; not those for types only."""
    found = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def room(path: Path) -> str:
    return path.relative_to(ROOT / "arlm").parts[0].removesuffix(".py")


def is_verb(path: Path) -> bool:
    """Whether a file of the command line is a verb: it has a function `main`."""
    tree = ast.parse(path.read_text())
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


FILES = sorted((ROOT / "arlm").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arlm(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        top, *rest = name.split(".")
        assert top not in {"datamodules", "tests", "examples", "tools"}, name
        if top in {"pytorch_lightning", "lightning_fabric"}:
            assert here in LIGHTNING, name
        if top == "arlm" and rest and rest[0] in ROOMS:
            target = rest[0]
            assert target == here or target in reachable(here), f"{here} may not import {name}"
    if here == "core":
        third = {n.split(".")[0] for n in imports(path)} - {"arlm"}
        assert third <= {
            "__future__",
            "itertools",
            "math",
            "abc",
            "collections",
            "dataclasses",
            "typing",
            "torch",
        }


VERBS = [p for p in sorted((ROOT / "arlm" / "cli").glob("*.py")) if is_verb(p)]


@pytest.mark.parametrize("path", VERBS, ids=lambda p: p.stem)
def test_no_verb_imports_another(path: Path) -> None:
    verbs = {f"arlm.cli.{verb.stem}" for verb in VERBS}
    assert {verb.stem for verb in VERBS} == {*COMMANDS, "trainer"}
    assert not [n for n in imports(path) if any(n.startswith(f"{verb}.") for verb in verbs)]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_switches_over_domains(path: Path) -> None:
    """What depends on the domain is in its view."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            kinds = ast.unparse(node.args[1])
            assert "Domain" not in kinds, f"line {node.lineno}: isinstance(..., {kinds})"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "arlm" / "models").glob("*.py")), ids=lambda p: p.stem
)
def test_no_network_imports_another(path: Path) -> None:
    assert not [n for n in imports(path) if n.startswith("arlm.models")]


@pytest.mark.parametrize("path", sorted((ROOT / "datamodules").glob("*.py")), ids=lambda p: p.stem)
def test_data_modules(path: Path) -> None:
    used = {n.split(".")[1] for n in imports(path) if n.startswith("arlm.")}
    assert used <= {"data", *reachable("data")}
    assert not [n for n in imports(path) if n.startswith("datamodules")]


def test_files_stay_small() -> None:
    for folder in ("arlm", "datamodules", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text().splitlines())
            assert lines <= 300, f"{path.relative_to(ROOT)} has {lines} lines"
