"""Build the wheel and the source distribution, and try the wheel and an editable installation in an empty folder.

python -m tools.try_package

Each is installed without its dependencies into a virtual environment of its own, which sees those of the
environment that runs this script: so torch is not installed again. `.ci/run` calls it.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHORT = "--trainer.max_epochs=-1 --trainer.max_steps=4 --trainer.val_check_interval=2 --trainer.check_val_every_n_epoch=null"
DATA = '''
import torch
from arlm.core import Spec
from arlm.data.dataset import FixedRows
from arlm.data.module import TokenDataModule
from arlm.domains import ImageDomain


class Stripes(TokenDataModule):
    """Binary images of 4x4 pixels, each column of one colour."""

    def __init__(self, batch_size: int = 16, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.domain = ImageDomain(2, 4, 4)

    @property
    def spec(self) -> Spec:
        return self.domain.spec

    def build(self, split):
        noise = torch.Generator().manual_seed({"train": 0, "val": 1, "test": 2}[split])
        columns = torch.randint(0, 2, (64, 1, 4), generator=noise)
        return FixedRows(columns.expand(-1, 4, -1).reshape(64, 16), self.domain)
'''
CONFIGURATION = """
data: {class_path: mydata.Stripes}
model: {net: pixelcnn_paper, optimizer: adam}
trainer: {max_steps: 2}
samples: {n: 2}
"""


def run(*command: object, folder: Path, **environment: str) -> str:
    """Print and run a command; its output. Exits with its output if it fails."""
    print("$", *command, flush=True)
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nexit code {done.returncode}")
    return done.stdout


def install(folder: Path, *what: object) -> Path:
    """A virtual environment with one package, and with this environment's packages below it."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    home = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder
    )
    site_packages = Path(home.strip())
    # A folder that a .pth adds comes after site-packages, and .pth files in it are not read: arlm itself is
    # found in the new environment only.
    (site_packages / "below.pth").write_text("\n".join(site.getsitepackages()))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"]
    started = time.monotonic()
    run(*pip, *what, folder=folder)
    own = {
        path.name
        for path in site_packages.iterdir()
        if path.name.startswith(("arlm", "datamodules"))
    }
    size = sum(p.stat().st_size for p in site_packages.rglob("*") if p.is_file())
    print(f"{time.monotonic() - started:.1f} s, {size / 1e6:.1f} MB: {', '.join(sorted(own))}")
    if "-e" in what and {"arlm", "configs"} & own:
        sys.exit("the editable installation left a folder in site-packages")
    return folder / "bin" / "arlm"


def try_out(arlm: Path, home: Path, folder: Path) -> None:
    """Train, sample and list configurations in an empty folder, then train on a data set of its own."""
    folder.mkdir()
    code = "import arlm, datamodules; print(arlm.__file__, datamodules.__file__)"
    places = run(arlm.parent / "python", "-c", code, folder=folder).split()
    if not all(place.startswith(str(home)) for place in places):
        sys.exit(f"imported {places}, not from {home}")
    listed = run(arlm, "configs", folder=folder)
    if len(listed.splitlines()) < 50:
        sys.exit(f"`arlm configs` lists too little:\n{listed}")
    run(arlm, "fit", "--config", "digits_pixelcnn", *SHORT.split(), folder=folder)
    run(arlm, "sample", "runs/digits_pixelcnn", "--out", "digits.png", folder=folder)
    if not (folder / "digits.png").is_file():
        sys.exit("`arlm sample` wrote no picture")
    (folder / "mydata.py").write_text(DATA)
    (folder / "mine.yaml").write_text(CONFIGURATION)
    more = [
        "--model.net.width=4",
        "--model.net.depth=1",
        "--model.net.head_width=4",
        "--run-name=mine",
    ]
    run(arlm, "fit", "--config", "mine.yaml", *more, folder=folder)
    print(run(arlm, "evaluate", "runs/mine", "--trust", "mydata.py", folder=folder))


def main() -> None:
    """Build and try both."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary).resolve()
        run(sys.executable, "-m", "build", "--outdir", work / "dist", ROOT, folder=work)
        (wheel,) = (work / "dist").glob("*.whl")
        (source,) = (work / "dist").glob("*.tar.gz")
        for file in (wheel, source):
            print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB")
        try_out(install(work / "wheel", wheel), work / "wheel", work / "empty")
        editable = install(work / "editable", "-e", ROOT)
        print(run(editable, "configs", "docs_transformer", folder=work))


if __name__ == "__main__":
    main()
