"""README.md and the pages of `docs/`: every command is found and run, every file that they name exists.

`make docs`, which `.ci/run` calls, runs all commands (`tools/docs/commands.py`); three pages are a slow test here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from arlm.__main__ import COMMANDS
from arlm.inference.configurations import shipped
from tools.docs.blocks import Block, UnknownBlock, blocks, pages
from tools.docs.commands import found_in, is_setup, shortened

PAGES = pages(ROOT)
IN_THE_SUITE = ["README.md", "docs/quick-start.md", "docs/python.md"]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with a block of each kind."""
    path = tmp_path / "page.md"
    path.write_text(
        "```bash\n# a comment\narlm one  # why\narlm two \\\n  --more\n```\n"
        "- in a list\n  ```python\n  print(1)\n  ```\n"
        "```{code-block} python\n:caption: file.py\nx = 1\n```\n"
        "```{code-cell}\n1 + 1\n```\n```text\narlm shown\n```\n"
        ":::{tip}\n```bash\narlm three\n```\n:::\n"
    )
    return path


def test_blocks_of_a_page(page: Path) -> None:
    found = list(blocks(page))
    kinds = ["bash", "python", "file", "{code-cell}", "text", "bash"]
    assert [block.language for block in found] == kinds
    assert found[0].commands == ["arlm one  # why", "arlm two --more"]
    assert found[2] == Block("file", "x = 1\n", "file.py", 11)
    assert sum(len(block.commands) for block in found) == found_in(page) == 4


@pytest.mark.parametrize(
    "language", ["console", "sh", "shell", "pycon", "{code-block} bash-session"]
)
def test_what_looks_like_a_command_cannot_be_left_out(page: Path, language: str) -> None:
    page.write_text(f"```{language}\n$ arlm fit\n```\n")
    with pytest.raises(UnknownBlock, match="use bash, python for what is run"):
        list(blocks(page))


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_found(name: str) -> None:
    commands = [command for block in blocks(ROOT / name) for command in block.commands]
    assert len(commands) == found_in(ROOT / name)


def test_setup_is_what_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    every = [c for page in PAGES for block in blocks(page) for c in block.commands]
    for command in filter(is_setup, every):
        if command.startswith("make "):
            target = command.split()[1]
            assert re.search(rf"^make {target}\b", ci, flags=re.M), command
            done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        else:
            # A clone and an environment; `make wheel` installs arlm into an empty one.
            assert re.match(r"(git clone|cd|python -m venv|pip install) ", command), command
    assert "make docs" in ci


def test_training_is_shortened_unless_the_command_says_how_long() -> None:
    assert "--trainer.max_steps 4" in shortened("arlm fit --config docs_lstm  # two minutes")
    assert "--trainer.max_steps 4" in shortened("python -m arlm fit --config docs_lstm")
    for rest in (" # a comment", " | tail -n 1", " > log", " 2> log", " && arlm runs"):
        short = shortened(f"arlm fit --config docs_lstm{rest}")
        assert short.startswith("arlm fit --config docs_lstm --trainer.")
        assert short.endswith(f" --samples.n 1{rest}")
    for command in ("arlm fit --config docs_lstm --trainer.max_epochs 2", "arlm sample runs/fit"):
        assert shortened(command) == command


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_commands() -> None:
    command = [sys.executable, "-m", "tools.docs.commands", *IN_THE_SUITE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stdout + done.stderr
    found, ran, setup = map(
        int, re.findall(r"(\d+) (?:commands|run|by)", done.stdout.splitlines()[-1])
    )
    assert found == ran + setup == sum(found_in(ROOT / name) for name in IN_THE_SUITE)
    assert ran >= 10


def test_every_verb_has_its_help_in_the_pages() -> None:
    page = (ROOT / "docs" / "command-line" / "verbs.md").read_text()
    assert set(re.findall(r"^```\{verb\} (\w+)$", page, flags=re.M)) == set(COMMANDS)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_and_files_exist(name: str) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", (ROOT / name).read_text(), flags=re.M | re.S)
    paths = re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)|src=\"([^\"]+)\"", text)
    for path in (a or b for a, b in paths):
        if not re.match(r"https?://|mailto:", path):
            found = (ROOT / name).parent / path
            assert found.exists() or found.with_suffix(".ipynb").exists(), path


def test_launch_lines_name_what_exists() -> None:
    """The commands in the docstrings of scripts and in the first lines of configurations."""
    scripts = [*ROOT.glob("tools/**/*.py"), *ROOT.glob("examples/*.py")]
    named = set()
    for path in scripts:
        own = str(path.relative_to(ROOT))
        package = path.with_name("__main__.py").exists()
        pattern = r"^ *(?:\w+=\S+ )?python (?:-m (tools[\w.]+)|((?:tools|examples)/\S+\.py))"
        for module, script in re.findall(pattern, path.read_text(), flags=re.M):
            inner = f"/{path.stem}" if package else ""  # of a package, in either of its two files
            target = script or f"{module.replace('.', os.sep)}{inner}.py"
            assert target == own, f"{own} tells how to launch {target}"
            named.add(own)
    # Imported by the others.
    parts = {"__init__.py", "step.py", "timing.py", "blocks.py", "server.py"}
    alone = [p for p in scripts if p.name not in parts and not p.with_name("__main__.py").exists()]
    missing = {str(p.relative_to(ROOT)) for p in alone} - named
    assert not missing, f"no launch line in {missing}"
    runs = list(shipped().values())
    assert len(runs) > 40
    for path in runs:
        line = path.read_text().splitlines()[0]
        assert line == f"# arlm fit --config {path.stem}"
