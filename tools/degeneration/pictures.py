"""The pictures: likelihood against repetition, frequencies of words, rates of characters, repeated phrases."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from arlm.reports.files import write_bytes
from tools.degeneration.measures import KINDS, RANKS, Measured
from tools.degeneration.methods import DRAWS, FAMILIES, SWEEPS, Method
from tools.degeneration.phrases import Curve

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STYLE = Path(__file__).parents[2] / "docs" / "chapters" / "style.mplstyle"
HUMAN = "human text"
HUMAN_COLOUR = "#D55E00"
MARKERS = dict(zip(FAMILIES, ("o", "s", "^", "D"), strict=True))
LINES = dict(zip(SWEEPS, ("#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"), strict=True))
GREY = "#444444"
# Of the methods whose words and characters are shown, as far as they are there.
WORDS = (DRAWS, "top_p=0.9", "preset=notes", "greedy", "beam=4", "no_repeat_ngram=4,greedy")


class Label(NamedTuple):
    """The name of a point, at its place in the data."""

    text: str
    x: float
    y: float
    colour: str


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, and close it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    plt.close(figure)
    return write_bytes(content.getvalue(), path, "--out")


def scatter(found: Mapping[str, Measured], methods: Mapping[str, Method], path: Path) -> Path:
    """Perplexity against self-BLEU and against repeated 4-grams, each method a point, sweeps joined by lines."""
    panels = {"self_bleu": "self-BLEU", "repeated_4": "repeated 4-grams, %"}
    with plt.style.context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(10, 4.8))
        labels = []
        for axis, (key, title) in zip(axes, panels.items(), strict=True):
            labels.append((axis, _points(axis, found, methods, key)))
            axis.set(xscale="log", xlabel="perplexity under the network", ylabel=title)
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
        axes[1].set_yscale("symlog", linthresh=1)
        axes[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes[1].set_ylim(bottom=-0.1)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
        figure.canvas.draw()
        for axis, each in labels:
            _annotate(axis, each)
        return save(figure, path)


def _points(
    axis: Axes, found: Mapping[str, Measured], methods: Mapping[str, Method], key: str
) -> list[Label]:
    """One panel of `scatter`; returns its labels, the most important ones first."""

    def point(name: str) -> tuple[float, float]:
        figures = found[name].figures
        return figures["perplexity"], figures[key]

    labels: list[Label] = []
    swept: set[str] = set()
    for sweep, colour in LINES.items():
        names = [n for n in methods if n.partition("=")[0] == sweep and "," not in n]
        if names:
            swept |= set(names)
            x, y = zip(*map(point, names), strict=True)
            axis.plot(x, y, marker="o", markersize=3.5, linewidth=1, color=colour, label=sweep)
            labels += [Label(n.partition("=")[2], *point(n), colour) for n in (names[0], names[-1])]
    for family, marker in MARKERS.items():
        names = [n for n, m in methods.items() if m.family == family and n not in swept]
        if names:
            x, y = zip(*map(point, names), strict=True)
            title = "other draws" if family == "draws" else family
            axis.plot(x, y, marker, color=GREY, markersize=4, alpha=0.8, label=title)
        short = {n: re.sub("preset=|,.*|(?<!beam)=.*", "", n) for n in names}
        short |= {n: n.removeprefix("preset=") for n in names if n.startswith("preset=")}
        own = [Label(short[n], *point(n), GREY) for n in names]
        labels = labels + own if family == "draws" else own + labels
    x0, y0 = point(HUMAN)
    axis.axvline(x0, color=HUMAN_COLOUR, linewidth=0.8, linestyle="--")
    axis.axhline(y0, color=HUMAN_COLOUR, linewidth=0.8, linestyle="--")
    axis.plot([x0], [y0], "*", color=HUMAN_COLOUR, markersize=13, label=HUMAN)
    return labels


def _annotate(axis: Axes, labels: Sequence[Label]) -> None:
    """Write labels beside their points, without those that would cover another one."""
    boxes: list[Bbox] = []
    for label in labels:
        x, y = axis.transData.transform((label.x, label.y))
        box = Bbox.from_bounds(x + 4, y - 9, 6 * len(label.text) + 4, 11)
        if any(box.overlaps(other) for other in boxes):
            continue
        boxes.append(box)
        axis.annotate(
            *(label.text, (label.x, label.y), (3, -5)),
            textcoords="offset points",
            fontsize=6,
            color=label.colour,
        )


def zipf(found: Mapping[str, Measured], path: Path) -> Path:
    """Frequencies of words by rank, for some methods."""
    with plt.style.context(STYLE):
        figure, axis = plt.subplots(figsize=(5.6, 3.8))
        for name in (n for n in (*WORDS, HUMAN) if n in found):
            counts, total = found[name].counts, sum(found[name].counts)
            style: dict[str, Any] = {}
            if name == HUMAN:
                style = {"color": "black", "linewidth": 2.4}
            label = f"{name}: {found[name].figures['zipf']:.2f}"
            axis.loglog(
                range(1, len(counts) + 1), [c / total for c in counts], label=label, **style
            )
        axis.axvspan(*RANKS, color="0.95", zorder=0)
        axis.set(xlabel="rank of the word", ylabel="share of all words")
        axis.legend(title=f"exponent of ranks {RANKS[0]} to {RANKS[1]}", title_fontsize=8)
        return save(figure, path)


def character_rates(
    found: Mapping[str, Measured], methods: Mapping[str, Method], path: Path
) -> Path:
    """Rates of characters under the penalties: in numbers, and in colours as multiples of those of human text."""
    shown = [n for n, m in methods.items() if m.family in FAMILIES[2:]]
    shown = [n for n in (DRAWS, "top_p=0.9", "greedy") if n in methods] + shown
    names = [HUMAN, *(shown or methods)]
    rows = [[found[name].rates[kind] for kind in KINDS] for name in names]
    multiples = [
        [math.log2(max(v, 0.01) / max(h, 0.01)) for v, h in zip(row, rows[0], strict=True)]
        for row in rows
    ]
    with plt.style.context(STYLE):
        figure, axis = plt.subplots(figsize=(8.2, 0.9 + 0.26 * len(names)))
        drawn = axis.imshow(multiples, cmap="PuOr", vmin=-3, vmax=3, aspect="auto")
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                strong = abs(multiples[y][x]) > 2
                colour = "white" if strong else "black"
                axis.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)
        axis.set_xticks(range(len(KINDS)), KINDS, fontsize=7)
        axis.set_yticks(range(len(names)), names)
        axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axis.spines[:].set_visible(False)
        bar = figure.colorbar(drawn, ticks=[-3, -2, -1, 0, 1, 2, 3])
        bar.ax.set_yticklabels(["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        bar.set_label(f"multiple of {HUMAN}")
        axis.set_title("in 100 characters")
        return save(figure, path)


def phrase_curves(panels: Mapping[str, Sequence[Curve]], path: Path) -> Path:
    """Nats a token against the number of repetitions, one panel for each network."""
    with plt.style.context(STYLE):
        size = 4.2 * len(panels), 3.2
        figure, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, squeeze=False)
        for axis, (name, curves) in zip(axes[0], panels.items(), strict=True):
            for index, curve in enumerate(curves):
                times = range(1, curve.nats.shape[1] + 1)
                colour = f"C{index}"
                axis.plot(
                    times,
                    curve.nats.mean(0),
                    marker="o",
                    markersize=3,
                    color=colour,
                    label=curve.name,
                )
                if len(curve.nats) > 3:
                    low, high = curve.nats.quantile(curve.nats.new_tensor([0.25, 0.75]), 0)
                    axis.fill_between(times, low, high, color=colour, alpha=0.15, linewidth=0)
            axis.set(title=name, xlabel="repetition")
            axis.legend()
        axes[0][0].set(ylabel="nats a token")
        axes[0][0].set_ylim(bottom=0)
        return save(figure, path)
