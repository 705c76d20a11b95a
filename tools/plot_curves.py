"""Plot the learning curves of one or more runs into one picture.

python -m tools.plot_curves runs/digits_pixelcnn runs/docs_transformer --out curves.png
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib

from arlm.__main__ import fail
from arlm.cli.parser import Parser
from arlm.errors import UserError
from arlm.reports.files import check_writable

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def curves(run: Path) -> tuple[str, dict[str, list[tuple[int, float]]]]:
    """The unit, and (step, bits) for each split, from the newest metrics.csv in a run's folder."""
    found = sorted(run.rglob("metrics.csv"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise UserError(f"run: '{run}' holds no metrics.csv; train first")
    points: dict[str, list[tuple[int, float]]] = {"train": [], "val": []}
    unit = "unit"
    with found[-1].open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                split, _, figure = name.partition("/")
                if figure.startswith("bits_per_") and split in points and value:
                    unit = figure.removeprefix("bits_per_")
                    points[split].append((int(row["step"]), float(value)))
    return unit, points


def plot(
    runs: list[Path], out: Path, baselines: dict[Path, dict[str, float]] | None = None
) -> None:
    """One panel for each run: training and validation bits over steps, baselines as horizontal lines."""
    check_writable(out)
    figure, panels = plt.subplots(1, len(runs), figsize=(5 * len(runs), 3.6), squeeze=False)
    for run, panel in zip(runs, panels[0], strict=True):
        unit, points = curves(run)
        for split, values in points.items():
            if values:
                style = {"alpha": 0.5} if split == "train" else {"marker": "o", "markersize": 3}
                panel.plot(*zip(*values, strict=True), label=split, **style)
        for index, (name, bits) in enumerate((baselines or {}).get(run, {}).items()):
            panel.axhline(bits, linestyle="--", linewidth=1, color=f"C{index + 2}", label=name)
        panel.set(title=run.name, xlabel="step", ylabel=f"bits per {unit}")
        panel.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)


def main(arguments: list[str]) -> None:
    """Parse and plot."""
    parser = Parser("plot_curves", "Plot the learning curves of one or more runs into one picture.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument(
        "--out", type=Path, default=Path("curves.png"), help="picture (default curves.png)"
    )
    options = parser.parse(arguments)
    plot(options.runs, options.out)
    print(options.out)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(fail(str(error)))
