"""A comparison as one self-contained HTML page: table, curves, samples, text coloured by surprise."""

from __future__ import annotations

import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
from torch import Tensor

from arlm.evaluation.paired import Interval, by_bins
from arlm.inference.scorer import TokenScores
from arlm.reports.view import Shown, View

matplotlib.use("Agg")
from matplotlib import pyplot as plt

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } .best { font-weight: 600 }
.samples { display: flex; flex-wrap: wrap; gap: 1rem } .samples > div { flex: 1 1 20rem; min-width: 0 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; background: #f7f7f7; padding: .7rem }
img { max-width: 100% } pre.surprise { background: white; border: 1px solid #ddd } figure { margin: 1rem 0 } svg { max-width: 100%; height: auto }
"""


@dataclass
class Model:
    """One model of the comparison: one run, or the mean over several seeds.

    Args:
        name: name on the page.
        network: name of its class.
        protocol: how evaluation gives context to a scored token.
        parameters: number of parameters.
        seeds: number of runs.
        scores: scores of the split; nats are the mean over the seeds.
        nll_by_seed: nats per token of each run.
        trained_tokens, trained_seconds: effort of training, the mean over the seeds.
        sampling: sampled tokens per second.
        by_context: (tokens of context, mean nats) in disjoint windows; empty for images.
        curve: (tokens seen, seconds, nll) at each validation of the first seed.
        shown: its samples or translations.
    """

    name: str
    network: str
    protocol: str
    parameters: int
    seeds: int
    scores: TokenScores
    nll_by_seed: list[float]
    trained_tokens: float
    trained_seconds: float
    sampling: float
    by_context: list[tuple[float, float]]
    curve: list[tuple[float, float, float]]
    shown: Shown
    difference: Interval | None = field(default=None)  # from the best model, in nats per token

    def row(self, unit: str, words: int) -> dict[str, str]:
        """Its figures in the table, by heading."""
        likelihood = self.scores.figures(unit, words)
        spread = ""
        if self.seeds > 1:
            mean = sum(self.nll_by_seed) / self.seeds
            variance = sum((nll - mean) ** 2 for nll in self.nll_by_seed) / (self.seeds - 1)
            spread = f" ± {math.sqrt(variance):.4f}"
        row = {
            "model": self.name,
            "network": self.network,
            "context": self.protocol,
            "parameters": f"{self.parameters:,}",
            "seeds": str(self.seeds),
            "trained tokens": f"{self.trained_tokens:,.0f}",
            "wall time": f"{self.trained_seconds:.0f} s",
            "nll": f"{likelihood['nll']:.4f}{spread}",
            "ppl": f"{likelihood['ppl']:.3f}",
            f"bits/{unit}": f"{likelihood[f'bits_per_{unit}']:.4f}",
        }
        if words:
            row["word ppl"] = f"{likelihood['word_ppl']:,.1f}"
        row["nats above the best"] = "best"
        if self.difference:
            mean, low, high = self.difference
            row["nats above the best"] = f"{mean:.4f} [{low:.4f}, {high:.4f}]"
        seconds = max(self.trained_seconds, 1e-9), max(self.scores.seconds, 1e-9)
        row["train tok/s"] = f"{self.trained_tokens / seconds[0]:,.0f}"
        row["score tok/s"] = f"{len(self.scores.tokens) / seconds[1]:,.0f}"
        row["sample tok/s"] = f"{self.sampling:,.0f}"
        return row


def table(rows: Sequence[dict[str, str]]) -> str:
    """An HTML table with a column for each model; the best in bold."""
    lines = []
    for name in rows[0]:
        tag = "th" if name == "model" else "td"
        cells = ""
        for row in rows:
            best = ' class="best"' if row["nats above the best"] == "best" else ""
            cells += f"<{tag}{best}>{html.escape(row[name])}</{tag}>"
        lines.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """The table as Markdown, a row for each model, for a terminal or a document."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plots(models: Sequence[Model], frequency: Tensor) -> str:
    """Learning curves over tokens and over time; loss by context and by token frequency (V,); as SVG."""
    figure, panels = plt.subplots(2, 2, figsize=(11, 7.5))
    (tokens, seconds), (context, rarity) = panels
    decades = [0, *(10**i for i in range(len(str(int(frequency.max())))))]
    for model in models:
        if model.curve:
            seen, wall, nll = zip(*model.curve, strict=True)
            tokens.plot(seen, nll, marker="o", markersize=3, label=model.name)
            seconds.plot(wall, nll, marker="o", markersize=3, label=model.name)
        scores = model.scores
        rare = [bins[:2] for bins in by_bins(scores.nats, frequency[scores.tokens], decades)]
        for panel, points in ((context, model.by_context), (rarity, rare)):
            if points:
                values, means = zip(*points, strict=True)
                style = {"marker": "o", "markersize": 3, "label": model.name}
                panel.plot([max(value, 0.5) for value in values], means, **style)
                panel.set_xscale("log")
    tokens.set(xlabel="training tokens", ylabel="validation nats per token")
    seconds.set(xlabel="seconds of training", ylabel="validation nats per token")
    context.set(xlabel="tokens of context, in disjoint windows", ylabel="nats per token")
    rarity.set(xlabel="occurrences of the token in training", ylabel="nats per token")
    for panel in panels.flat:
        if panel.lines:
            panel.legend(fontsize="small")
    figure.tight_layout()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    plt.close(figure)
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def page(title: str, models: Sequence[Model], view: View, words: int, frequency: Tensor) -> str:
    """The whole report.

    Args:
        title: names the data and the split.
        models: the models; the best of them has no `difference`.
        view: the view of the data's domain.
        words: number of words in the split; 0 for data without words.
        frequency: (V,) occurrences of each token in the training data of the first model.
    """
    rows = [model.row(view.domain.unit, words) for model in models]
    count = len(models[0].scores.tokens)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{count:,} tokens, each scored once by every model. The interval is the middle 95 % of a "
        "paired block bootstrap of nats per token.</p>",
        table(rows),
        f"<figure>{plots(models, frequency)}</figure>",
        f"<h2>{view.heading}</h2>",
        '<div class="samples">',
        *(f"<div><h3>{html.escape(model.name)}</h3>{model.shown.html()}</div>" for model in models),
        "</div>",
    ]
    surprises = {m.name: view.surprise(m.scores.tokens, m.scores.nats) for m in models}
    if any(surprises.values()):
        parts.append("<h2>Surprise of each token</h2>")
        parts += [f"<h3>{html.escape(name)}</h3>{text}" for name, text in surprises.items()]
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><body>{body}</body></html>\n"
    )
