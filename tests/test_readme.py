"""The README's commands run, in order, in one folder, shortened; the Makefile's are run by `.ci/run`."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
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


@pytest.mark.timeout(600)
def test_commands(folder: Path) -> None:
    ran = 0
    Image.effect_noise((8, 8), 60).save(folder / "digit.png")
    for language, words in (("de", "ein Hund läuft"), ("en", "a dog runs")):
        lines = (f"{words} {i} mal ." for i in range(200))
        (folder / f"small.{language}").write_text("\n".join(lines) + "\n")
    for command in commands():
        words = shlex.split(command)
        if words[0] in ("git", "cd", "make", "pip") or words[:3] == ["python", "-m", "venv"]:
            continue
        if (
            words[0] == "ARLM_DATA_DIR=../shared/data"
            or "mnist" in command
            or "multi30k" in command
        ):
            continue  # needs data that a clone does not have; tests/test_configs.py runs one batch
        given = b""
        if words[0] == "echo":
            given = f"{words[1]}\n".encode()
            words = words[words.index("|") + 1 :]
        assert words[0] == "python", command
        if words[1:4] == ["-m", "arlm", "fit"]:
            words += SHORT
        if words[1:3] == ["-m", "arlm"]:
            with patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(given))):
                result = run_arlm(*words[3:], folder=folder)
            assert result.code == 0, f"{command}\n{result.err}"
        else:
            python = [sys.executable, *words[1:]]
            done = subprocess.run(python, cwd=folder, capture_output=True, text=True, timeout=200)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
        ran += 1
    assert ran >= 6


def test_python(folder: Path) -> None:
    (code,) = blocks("python")
    demo = folder / "runs" / "demo"
    demo.mkdir(parents=True, exist_ok=True)
    (demo / "docs_transformer").symlink_to(folder / "runs" / "docs_transformer")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[0]) > 0


def test_make_targets_are_those_of_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    for command in [c for c in commands() if c.startswith("make")]:
        assert command in ci, f"{command} is not run by .ci/run"
        target = command.split()[1]
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_pictures_and_files_exist() -> None:
    paths = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", README)
    local = [a or b for a, b in paths if not (a or b).startswith("http")]
    assert len(local) >= 3
    for path in local:
        assert (ROOT / path).exists(), path


@pytest.mark.timeout(600)
def test_commands_in_configs_and_docstrings_exist() -> None:
    for path in [*ROOT.glob("tools/**/*.py"), *ROOT.glob("examples/*.py")]:
        for module in re.findall(r"^python -m (tools[\w.]+)", path.read_text(), flags=re.M):
            assert (ROOT / f"{module.replace('.', os.sep)}.py").exists(), module
