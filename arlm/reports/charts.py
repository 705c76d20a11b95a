"""Line charts as SVG whose colours are those of the page's style sheet, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from arlm.reports.page import TEMPLATES

COLOURS = 8  # that the style sheet has, --c0 to --c7
SIZE = 5.2, 3.2  # inches
MARKED = 40  # points of a line up to which they are marked
# Names of the style sheet's colours, and colours that take their place in matplotlib's output.
NAMES = ("ink", "line", "faint", "paper", *(f"c{index}" for index in range(COLOURS)))
PAGE = {name: f"#0c0c{index:02x}" for index, name in enumerate(NAMES, start=1)}
INK, LINE = PAGE["ink"], PAGE["line"]
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 10,
}


@dataclass(frozen=True)
class Series:
    """One line: the mean of several runs, with a band of one standard deviation.

    Args:
        index: of its colour.
        name: in the legend.
        x: (N,) values.
        ys: (N,) values of each run.
    """

    index: int
    name: str
    x: Sequence[float]
    ys: Sequence[Sequence[float]]


def merged(index: int, name: str, curves: Sequence[Sequence[tuple[float, float]]]) -> Series | None:
    """Runs that were measured at different x as one series, over the x that all of them reach.

    Args:
        index, name: of the series.
        curves: (x, y) of each run, x ascending.

    Returns: None if a run has no points.
    """
    if not curves or not all(curves):
        return None
    columns = [np.array(curve, dtype=float).T for curve in curves]
    low, high = max(x[0] for x, _ in columns), min(x[-1] for x, _ in columns)
    x = columns[0][0]
    x = x[(x >= low) & (x <= high)]
    if not len(x):
        return None
    return Series(index, name, x.tolist(), [np.interp(x, *one).tolist() for one in columns])


def line_chart(
    series: Sequence[Series | None], xlabel: str, ylabel: str, log: bool = False
) -> str | None:
    """A chart as an `svg` element; None if there is no line to draw.

    Args:
        series: None is left out.
        xlabel, ylabel: of the axes.
        log: whether x is logarithmic.
    """
    drawn = [one for one in series if one is not None]
    if not drawn:
        return None
    style: Any = STYLE | {"svg.hashsalt": xlabel}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=SIZE, layout="constrained")
        panel = figure.subplots()
        for one in drawn:
            colour = PAGE[f"c{one.index % COLOURS}"]
            values = np.array(one.ys)
            mean = values.mean(0)
            x = np.maximum(one.x, 0.5) if log else one.x
            marker = "o" if len(x) <= MARKED else ""
            panel.plot(x, mean, color=colour, marker=marker, markersize=2.5, linewidth=1.6)
            if len(values) > 1:
                low, high = mean - values.std(0, ddof=1), mean + values.std(0, ddof=1)
                panel.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        panel.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log else "linear")
        panel.grid(linewidth=0.6)
        panel.set_axisbelow(True)
        return svg(figure)


def svg(figure: Figure) -> str:
    """A figure whose colours are those of `PAGE` as an `svg` element of a page."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return compact(file.getvalue())


def light() -> dict[str, str]:
    """The colours of pictures: those of the style sheet's light page, by name."""
    css = (TEMPLATES / "style.css").read_text()
    found = dict(re.findall(r"--(\w+): (#\w+)", css[: css.index("@media")]))
    return {name: found[name] for name in NAMES}


def compact(svg: str) -> str:
    """Matplotlib's SVG as an element of a page: without header and white space, in the page's colours."""
    svg = re.sub(r">\s+<", "><", svg[svg.index("<svg") :])
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)  # a hundredth of a point is enough
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    names = {colour: name for name, colour in PAGE.items()}
    return re.sub("|".join(names), lambda found: f"var(--{names[found.group()]})", svg).strip()
