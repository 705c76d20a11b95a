"""The README's commands run, in order, in one folder, shortened; the Makefile's are run by `.ci/run`."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import pytest
from conftest import ROOT, run_arlm
from PIL import Image

README = (ROOT / "README.md").read_text()
# Training is cut short here; the figures in the README come from the unchanged commands.
SHORT = [
    *("--trainer.max_epochs", "-1", "--trainer.check_val_every_n_epoch", "null"),
    *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2", "--samples.n", "1"),
]


def blocks(language: str) -> list[str]:
    """Fenced code of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def commands() -> list[str]:
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a clone holds."""
    folder = tmp_path_factory.mktemp("clone")
    for name in (
        "arlm",
        "configs",
        "datamodules",
        "examples",
        "tools",
        "README.md",
        "ARCHITECTURE.md",
    ):
        (folder / name).symlink_to(ROOT / name)
    return folder


# How many commands the README has, by what they need. A command that is added is counted here, so that none
# is left out of the tests by accident.
COUNTS = {"setup": 4, "published data": 6, "nothing": 37}


def needs(command: str) -> str:
    """What a command needs: `.ci/run` runs the setup, and `published data` is in ARLM_DATA_DIR."""
    if command.startswith(("git ", "cd ", "make ", "pip ", "python -m venv ")):
        return "setup"
    return "published data" if "mnist" in command or "multi30k" in command else "nothing"


def run_commands(folder: Path, kind: str, *short: str) -> int:
    """Run the README's commands of one kind, with training cut short; returns how many there were."""
    chosen = [command for command in commands() if needs(command) == kind]
    for command in chosen:
        words, given = shlex.split(command), b""
        if words[0] == "echo":
            given = f"{words[1]}\n".encode()
            words = words[words.index("|") + 1 :]
        assert words[0] == "python", command
        if words[1:4] == ["-m", "arlm", "fit"]:
            words += [*SHORT, *short]
        if words[1:3] == ["-m", "arlm"]:
            with patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(given))):
                result = run_arlm(*words[3:], folder=folder)
            assert result.code == 0, f"{command}\n{result.err}"
        else:
            python = [sys.executable, *words[1:]]
            done = subprocess.run(python, cwd=folder, capture_output=True, text=True, timeout=200)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
    return len(chosen)


def test_every_command_is_counted() -> None:
    assert Counter(map(needs, commands())) == COUNTS


@pytest.mark.timeout(600)
def test_commands(folder: Path) -> None:
    Image.effect_noise((8, 8), 60).save(folder / "digit.png")
    for language, words in (("de", "ein Hund läuft"), ("en", "a dog runs")):
        lines = (f"{words} {i} mal ." for i in range(200))
        (folder / f"small.{language}").write_text("\n".join(lines) + "\n")
    assert run_commands(folder, "nothing") == COUNTS["nothing"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_commands_on_published_data(folder: Path, data_dir: Path, monkeypatch) -> None:
    monkeypatch.setenv("ARLM_DATA_DIR", str(data_dir))
    (folder / "docs" / "mnist").mkdir(parents=True, exist_ok=True)
    short = ["--trainer.limit_val_batches", "1"]
    ran = run_commands(folder, "published data", *short)
    assert ran == COUNTS["published data"]


def test_python(folder: Path) -> None:
    (code,) = blocks("python")
    demo = folder / "runs" / "demo"
    demo.mkdir(parents=True, exist_ok=True)
    (demo / "docs_transformer").symlink_to(folder / "runs" / "docs_transformer")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[0]) > 0
