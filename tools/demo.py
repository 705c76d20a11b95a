"""The demo: train a PixelCNN on handwritten digits and a transformer on English text, and sample both.

python -m tools.demo [--short]

Prints and runs the commands, and writes to runs/demo/: digits.png, text.txt, curves.png, and results.txt with
the figures of networks and baselines. `--short` trains for a few steps only, as a test.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from tools.plot_curves import plot

OUT = Path("runs/demo")
FOLDERS = {"digits_pixelcnn": "images", "docs_transformer": "text"}  # below configs/
RUNS = {"digits_pixelcnn": "digits.png", "docs_transformer": "text.txt"}
SHORT = "--trainer.max_epochs=-1 --trainer.check_val_every_n_epoch=null --trainer.max_steps=30 --trainer.val_check_interval=15"


def arlm(arguments: str, capture: bool = False) -> str:
    """Print and run one command; exit if it fails. Returns its output if `capture` is set."""
    print(f"\n$ python -m arlm {arguments}", flush=True)
    process = subprocess.run(
        [sys.executable, "-m", "arlm", *shlex.split(arguments)],
        stdout=subprocess.PIPE if capture else None,
        text=True,
    )
    if process.returncode:
        sys.exit(process.returncode)
    return process.stdout or ""


def report(run: str) -> tuple[str, dict[str, float]]:
    """Evaluate a run: one line of figures, and the bits per unit of the baselines."""
    result = json.loads(arlm(f"evaluate {OUT / run} --baselines --json", capture=True))
    models: dict[str, dict[str, float]] = result["models"]
    figure = next(name for name in models["uniform"] if name.startswith("bits"))
    values = {name: row[figure] for name, row in models.items()}
    heading = f"{result['data']['name']}, test split, {result['tokens']} tokens, {figure}"
    line = f"{heading}: " + ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    print(line)
    return line, dict(list(values.items())[1:])


def main() -> None:
    """Train, evaluate, sample, plot, and print where the results are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--short", action="store_true", help="train for 30 steps only")
    options = parser.parse_args()
    started = time.monotonic()
    extra = f" {SHORT}" if options.short else ""
    lines, baselines = [], {}
    for run, out in RUNS.items():
        logger = f"--trainer.logger.save_dir {OUT.parent} --trainer.logger.name demo/{run}"
        arlm(f"fit --config configs/{FOLDERS[run]}/{run}.yaml {logger}{extra}")
        line, baselines[OUT / run] = report(run)
        lines.append(line)
        n = "-n 64" if out.endswith(".png") else "-n 4 --processors temperature=0.7"
        arlm(f"sample {OUT / run} {n} --out {OUT / out}")
    plot([OUT / run for run in RUNS], OUT / "curves.png", baselines)
    (OUT / "results.txt").write_text("\n".join(lines) + "\n")
    print(f"\nDone in {time.monotonic() - started:.0f} s. Results:")
    for name in (*RUNS.values(), "curves.png", "results.txt"):
        print(f"  {OUT / name}")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
