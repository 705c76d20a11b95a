"""What the command line imports: classes of the working folder, but nothing in it that hides an installed module."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPT = "import sys\nfrom arlm.__main__ import entry\nentry()\n"  # as pip writes it
SHORT = ["--trainer.max_steps=1", "--trainer.limit_val_batches=1", "--samples.n=0"]
NETWORK = """
from arlm.models.pixelcnn import PixelCNN
class Mine(PixelCNN):
    def __init__(self, spec, width: int = 4):
        super().__init__(spec, width=width, depth=1)
"""


def arlm(start: str, folder: Path, *arguments: str, isolated: bool = False) -> str:
    """The output of a command that succeeds, started by `python -m arlm` or by the console script."""
    script = folder.parent / "bin" / "arlm"
    script.parent.mkdir(exist_ok=True)
    script.write_text(SCRIPT)
    command = ["-m", "arlm"] if start == "module" else [str(script)]
    command = [sys.executable, *(["-P"] if isolated else []), *command, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr


@pytest.fixture
def traps(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files have the names of arlm, of its data modules, and of modules that they import."""
    folder = tmp_path / "work"
    (folder / "datamodules").mkdir(parents=True)
    (folder / "mine.py").write_text(NETWORK)
    trap = f"open({str(tmp_path / 'imported')!r}, 'a').write(__name__)"
    names = ("datamodules/__init__", "datamodules/digits", "random", "signal", "yaml", "torch")
    for name in names:
        (folder / f"{name}.py").write_text(trap)
    yield folder
    assert not (tmp_path / "imported").exists(), (tmp_path / "imported").read_text()


@pytest.mark.parametrize("start", ["module", "script"])
def test_a_class_of_the_working_folder_is_found_and_hides_nothing(start: str, traps: Path) -> None:
    digits = ["fit", "--config", str(ROOT / "configs/images/digits_pixelcnn.yaml"), *SHORT]
    output = arlm(start, traps, *digits, "--model.net", "mine.Mine", "--trainer.accelerator=cpu")
    run = traps / "runs/digits_pixelcnn-Mine/version_0"  # named by what was changed
    assert (run / "checkpoints/last.ckpt").exists(), output
    assert "Mine" in (run / "config.yaml").read_text()


def test_a_safe_path_holds_no_working_folder(traps: Path) -> None:
    digits = ["fit", "--config", str(ROOT / "configs/images/digits_pixelcnn.yaml"), *SHORT]
    output = arlm("module", traps, *digits, "--model.net", "mine.Mine", isolated=True)
    assert "arlm: error: " in output
    assert "mine" in output


def test_datamodules_is_arlms_own_from_python_too(traps: Path) -> None:
    code = "import arlm, datamodules.digits; print(datamodules.digits.__file__)"
    environment = os.environ | {"PYTHONPATH": f"{traps}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    (traps / "random.py").unlink()
    for name in ("signal", "yaml", "torch"):
        (traps / f"{name}.py").unlink()
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=traps, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(ROOT / "datamodules" / "digits.py"), done.stderr
