"""Who may import whom, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import ROOT

# Each room, and the rooms of arlm that it may import.
BASE = {"errors"}
CORE = BASE | {"core"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "files": BASE,
    "core": BASE,
    "layers": CORE,
    "models": CORE | {"layers"},
    "rules": CORE,
    "sampling": CORE | {"rules"},
    "domains": CORE,
    "datasets": CORE | {"domains"},
    "corpus": CORE | {"domains"},
    "pairs": CORE | {"files", "domains", "datasets"},
    "readings": CORE | {"domains", "datasets", "corpus"},
    "reader": CORE,
    "translator": CORE | {"domains", "rules", "sampling"},
    "evaluation": CORE | {"domains", "datasets", "pairs", "readings", "reader", "pictures"},
    "data": CORE | {"domains", "datasets", "sampling"},
    "text_data": CORE | {"files", "domains", "data", "corpus", "readings"},
    "parallel_data": CORE | {"domains", "data", "datasets", "pairs", "text_data"},
    "optimizers": BASE,
    "memory": set(),
    "schedule": BASE,
    "checkpoint": CORE | {"domains"},
    "pictures": CORE | {"domains"},
    "attention_map": CORE | {"domains", "pictures"},
    "module": CORE | {"checkpoint", "evaluation", "memory", "reader", "sampling", "schedule"},
    "callbacks": CORE | {"attention_map", "domains", "pairs", "pictures", "sampling", "translator"},
    "messages": BASE,
    "__init__": set(),
}
ANYTHING = {"cli", "commands", "__main__"}
LIGHTNING = {"data", "text_data", "parallel_data", "module", "callbacks", "cli"}


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


FILES = sorted((ROOT / "arlm").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arlm(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        top, *rest = name.split(".")
        assert top not in {"datamodules", "tests", "examples", "tools"}, name
        if top in {"pytorch_lightning", "lightning_fabric"}:
            assert here in LIGHTNING, name
        if top == "arlm" and here not in ANYTHING:
            target = rest[0]
            known = (ROOT / "arlm" / target).is_dir() or (ROOT / "arlm" / f"{target}.py").exists()
            if known and target != here:
                assert target in ALLOWED[here], f"{here} may not import {name}"
    if here == "core":
        third = {n.split(".")[0] for n in imports(path)} - {"arlm"}
        assert third <= {
            "__future__",
            "math",
            "abc",
            "collections",
            "dataclasses",
            "typing",
            "torch",
        }


@pytest.mark.parametrize(
    "path", sorted((ROOT / "arlm" / "models").glob("*.py")), ids=lambda p: p.stem
)
def test_no_network_imports_another(path: Path) -> None:
    assert not [n for n in imports(path) if n.startswith("arlm.models")]


@pytest.mark.parametrize("path", sorted((ROOT / "datamodules").glob("*.py")), ids=lambda p: p.stem)
def test_data_modules(path: Path) -> None:
    used = {n.split(".")[1] for n in imports(path) if n.startswith("arlm.")}
    assert used <= {
        "data",
        "text_data",
        "parallel_data",
        "pairs",
        "corpus",
        "datasets",
        "domains",
        "core",
        "errors",
    }
    assert not [n for n in imports(path) if n.startswith("datamodules")]


def test_files_stay_small() -> None:
    for folder in ("arlm", "datamodules", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = len(path.read_text().splitlines())
            assert lines <= 300, f"{path.relative_to(ROOT)} has {lines} lines"
