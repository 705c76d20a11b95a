"""A run's own page, `index.html` in its folder: figures, curves, samples over time, configuration, data, versions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arlm.checkpoints import Summary, find, summarise
from arlm.errors import UserError
from arlm.inference.measures import read_metrics
from arlm.inference.summary import shown_figure
from arlm.reports.charts import Series, line_chart
from arlm.reports.files import write_text
from arlm.reports.page import render
from arlm.reports.shown import data_url

SAMPLES = 8  # times whose samples are shown
LARGEST = 1e30  # of a value in a chart; nan is not drawn either
DERIVED = re.compile(r"ppl|bits_per_\w+")  # figures whose curve is that of the nll
SPLITS = "train", "val"
KINDS = {".png": "image/png", ".wav": "audio/wav", ".gif": "image/gif"}


def write_run_page(folder: str | Path) -> Path:
    """Write `index.html` into the folder of a version, from the files there; returns its path."""
    folder = Path(folder)
    summary = _summary(folder)
    metrics = folder / "metrics.csv"
    rows = read_metrics(metrics) if metrics.exists() else []
    steps = chosen(samples(folder / "samples"), SAMPLES)
    page = render(
        "run.html",
        f"{folder.parent.name}, {folder.name.replace('_', ' ')}",
        str(summary.run.get("command") or "") if summary else "",
        facts=facts(summary) if summary else {},
        figures=last_figures(rows),
        charts=charts(rows),
        samples=[(step, [shown(path) for path in paths]) for step, paths in steps],
        data=_json(folder / "data.json"),
        versions=summary.run.get("versions") or {} if summary else {},
        config=_text(folder / "config.yaml"),
    )
    return write_text(page, folder / "index.html")


def _summary(folder: Path) -> Summary | None:
    """What the best checkpoint records; None without a checkpoint."""
    try:
        return summarise(find(folder))
    except UserError:
        return None


def facts(summary: Summary) -> dict[str, str]:
    """Network, data, best figure and effort, by name."""
    found = {"network": summary.network_name, "data": summary.data_name}
    if figure := shown_figure(summary):
        found["best"] = f"{figure} at step {summary.run.get('step')}"
    for name, form in (("steps", "{:,.0f}"), ("tokens", "{:,.0f}"), ("seconds", "{:,.0f}")):
        value = summary.effort.get(name)
        if isinstance(value, int | float):
            found[name] = form.format(value)
    return found


def last_figures(rows: Sequence[dict[str, float]]) -> list[tuple[str, str, str]]:
    """Name, last value in training and last value in validation of each figure."""
    last: dict[str, dict[str, float]] = {"train": {}, "val": {}}
    for row in rows:
        for name, value in row.items():
            split, slash, figure = name.partition("/")
            if slash and split in last:
                last[split][figure] = value
    names = list(last["val"]) + [name for name in last["train"] if name not in last["val"]]
    return [(n, *(f"{last[s][n]:.4f}" if n in last[s] else "" for s in last)) for n in names]  # type: ignore[misc]


def charts(rows: Sequence[dict[str, float]]) -> list[str]:
    """Curves of each figure over steps, of training and validation; validation over seconds; as SVG."""
    names = {name.partition("/")[2] for row in rows for name in row if name.startswith("val/")}
    drawn = []
    for name in sorted(name for name in names if not DERIVED.fullmatch(name)):
        over = [_series(rows, "step", f"{split}/{name}", i) for i, split in enumerate(SPLITS)]
        drawn.append(line_chart(over, "step", name))
        drawn.append(line_chart([_series(rows, "seconds", f"val/{name}", 1)], "seconds", name))
    return [chart for chart in drawn if chart]


def _series(rows: Sequence[dict[str, float]], x: str, y: str, index: int) -> Series | None:
    points = [(row[x], row[y]) for row in rows if x in row and y in row]
    points = [point for point in points if all(abs(value) <= LARGEST for value in point)]
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return Series(index, y, xs, [ys])


def samples(folder: Path) -> list[tuple[int, list[Path]]]:
    """The files of each step that wrote samples, in order."""
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("step-*")):
        if number := re.match(r"step-(\d+)", path.name):
            found.setdefault(int(number[1]), []).append(path)
    return sorted(found.items())


def chosen(steps: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the steps, evenly, with the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]


def shown(path: Path) -> dict[str, str]:
    """A file of samples for the page: a text, a picture, a sound, or its name."""
    kind = KINDS.get(path.suffix, "")
    content = data_url(path.read_bytes(), kind) if kind else ""
    text = path.read_text(encoding="utf-8") if path.suffix == ".txt" else ""
    return {"name": path.name, "kind": kind.partition("/")[0], "url": content, "text": text}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
