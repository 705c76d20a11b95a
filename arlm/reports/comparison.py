"""A comparison as a table for the terminal and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import stdev
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arlm.evaluation.classification import McNemar
from arlm.evaluation.paired import Interval, by_bins
from arlm.inference.items import Item, ItemScores
from arlm.inference.scorer import TokenScores
from arlm.reports.charts import COLOURS, Series, line_chart, merged
from arlm.reports.page import render
from arlm.reports.shown import Shown
from arlm.reports.view import View

WIDTH = 100  # columns of a terminal
WORD_TOKENS = 3  # tokens a word up to which a perplexity per word means something


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
        nats_by_seed: (seeds, N), nats of each run.
        trained_tokens, trained_seconds: effort of training, the mean over the seeds.
        sampling: sampled tokens per second.
        by_context: for each seed (tokens of context, mean nats) in disjoint windows; empty for images.
        curves: for each seed (tokens seen, seconds, nll) at each validation.
        shown: samples or translations of the first seed.
        quality: figures other than the likelihood, such as BLEU, the mean over the seeds; with several titles,
            by `title: figure`.
        difference: from the best model, in nats per token; None for the best.
        correct: whether the first seed classifies each example right, (N,) bool; None for other data.
        mcnemar: McNemar's test of the first seed against that of the best model.
    """

    name: str
    network: str
    protocol: str
    parameters: int
    seeds: int
    scores: TokenScores
    nats_by_seed: Tensor
    trained_tokens: float
    trained_seconds: float
    sampling: float
    by_context: list[list[tuple[float, float]]]
    curves: list[list[list[float]]]
    shown: Shown
    quality: dict[str, float]
    difference: Interval | None = field(default=None)
    correct: Tensor | None = field(default=None)
    mcnemar: McNemar | None = field(default=None)

    def figures(self, unit: str, words: int) -> dict[str, Any]:
        """Its figures by name, for JSON and for the table."""
        count = len(self.scores.tokens)
        word_count = words if words and count / words <= WORD_TOKENS else 0
        seconds = max(self.trained_seconds, 1e-9), max(self.scores.seconds, 1e-9)
        return {
            "name": self.name,
            "network": self.network,
            "protocol": self.protocol,
            "parameters": self.parameters,
            "seeds": self.seeds,
            "tokens": count,
            **self.scores.figures(unit, word_count),
            "nll_by_seed": self.nats_by_seed.mean(1).tolist(),
            **self.quality,
            "trained_tokens": self.trained_tokens,
            "trained_seconds": self.trained_seconds,
            "trained_tokens_per_second": self.trained_tokens / seconds[0],
            "scored_tokens_per_second": count / seconds[1],
            "sampled_tokens_per_second": self.sampling,
            "difference": self.difference,
            **({} if self.mcnemar is None else {"mcnemar": self.mcnemar}),
        }


class Line(NamedTuple):
    """One figure of all models."""

    name: str
    cells: list[str]
    best: list[bool]  # whether a model's value is the best


def lines(models: Sequence[Model], unit: str, words: int) -> list[Line]:
    """The table: one line for each figure, with a cell for each model. Figures that no model has are left out."""
    figures = [model.figures(unit, words) for model in models]
    above = "nats above the best"
    rows: list[tuple[str, str, Callable[[Any], str], Callable | None]] = [
        ("network", "network", str, None),
        ("context", "protocol", str, None),
        ("parameters", "parameters", "{:,}".format, None),
        ("seeds", "seeds", str, None),
        ("trained tokens", "trained_tokens", "{:,.0f}".format, None),
        ("wall time", "trained_seconds", "{:.0f} s".format, None),
        ("nll", "nll", "{:.4f}".format, min),
        ("ppl", "ppl", "{:.3f}".format, min),
        (f"bits/{unit}", f"bits_per_{unit}", "{:.4f}".format, min),
        ("word ppl", "word_ppl", "{:,.1f}".format, min),
        (above, "difference", _interval, None),
        ("BLEU", "bleu", "{:.1f}".format, max),
        ("chrF", "chrf", "{:.1f}".format, max),
        ("exact, %", "exact", "{:.1f}".format, max),
        ("accuracy", "accuracy", "{:.4f}".format, max),
        ("F1, macro", "f1", "{:.4f}".format, max),
        ("Matthews", "matthews", "{:.4f}".format, max),
        ("McNemar to the best", "mcnemar", _uneven, None),
        ("mean abs. error", "mean_absolute_error", "{:.4f}".format, min),
        ("Pearson", "pearson", "{:.4f}".format, max),
        ("Spearman", "spearman", "{:.4f}".format, max),
        ("train tok/s", "trained_tokens_per_second", "{:,.0f}".format, max),
        ("score tok/s", "scored_tokens_per_second", "{:,.0f}".format, max),
        ("sample tok/s", "sampled_tokens_per_second", "{:,.0f}".format, max),
    ]
    given_keys = dict.fromkeys(key for one in models for key in one.quality)  # in their order
    with_titles = [
        (key.removesuffix(last) + name, key, write, choose)
        for name, last, write, choose in rows
        for key in [last, *(key for key in given_keys if key.endswith(f": {last}"))]
    ]
    found = []
    for name, key, write, choose in with_titles:
        values = [one.get(key) for one in figures]
        if name != above and all(value is None for value in values):
            continue
        given = [value for value in values if value is not None]
        target = choose(given) if choose and len(models) > 1 else None
        cells = ["–" if v is None and name != above else write(v) for v in values]  # noqa: RUF001
        if key == "nll":
            cells = [cell + _spread(one) for cell, one in zip(cells, figures, strict=True)]
        best = [target is not None and value == target for value in values]
        if name == above:
            best = [len(models) > 1 and value is None for value in values]
        found.append(Line(name, cells, best))
    return found


def _interval(difference: Interval | None) -> str:
    return "best" if difference is None else "{:.4f} [{:.4f}, {:.4f}]".format(*difference)


def _uneven(test: McNemar) -> str:
    """Examples that only this model and only the best one gets right, and p."""
    return f"{test.only_first}:{test.only_second}, p {test.p:.3g}"


def _spread(figures: dict[str, Any]) -> str:
    nll = figures["nll_by_seed"]
    return f" ± {stdev(nll):.4f}" if len(nll) > 1 else ""


def text_table(names: Sequence[str], table: Sequence[Line], width: int = WIDTH) -> str:
    """The table for a terminal of `width` columns: a column for each model, in several blocks if they do not fit.

    The best values have a star.
    """

    def star(line: Line, index: int) -> str:
        return "*" if line.best[index] and line.cells[index] != "best" else " "

    cells = [
        [name, *(line.cells[i] + star(line, i) for line in table)] for i, name in enumerate(names)
    ]
    heads = ["", *(line.name for line in table)]
    first = max(map(len, heads))
    blocks: list[list[list[str]]] = [[]]
    for column in cells:
        used = first + sum(2 + max(map(len, c)) for c in [*blocks[-1], column])
        if blocks[-1] and used > width:
            blocks.append([])
        blocks[-1].append(column)
    written = []
    for block in blocks:
        for row, head in enumerate(heads):
            values = (f"  {column[row]:>{max(map(len, column))}}" for column in block)
            written.append(f"{head:{first}}{''.join(values)}".rstrip())
        written.append("")
    return "\n".join(written[:-1])


def charts(models: Sequence[Model], frequency: Tensor) -> list[str]:
    """Learning curves over tokens and over time; loss by context and by token frequency (V,); as SVG."""
    decades = [0, *(10**i for i in range(len(str(int(frequency.max())))))]
    nats = "nats per token"

    def over(column: int) -> list[Series | None]:
        return [
            merged(i, one.name, [[(row[column], row[2]) for row in curve] for curve in one.curves])
            for i, one in enumerate(models)
        ]

    context = [merged(i, one.name, one.by_context) for i, one in enumerate(models)]
    rarity = [
        merged(
            *(i, one.name),
            [
                [
                    (edge, value)
                    for edge, value, _ in by_bins(row, frequency[one.scores.tokens], decades)
                ]
                for row in one.nats_by_seed
            ],
        )
        for i, one in enumerate(models)
    ]
    drawn = [
        line_chart(over(0), "training tokens", f"validation {nats}"),
        line_chart(over(1), "seconds of training", f"validation {nats}"),
        line_chart(context, "tokens of context, in disjoint windows", nats, log=True),
        line_chart(rarity, "occurrences of the token in training", nats, log=True),
    ]
    return [chart for chart in drawn if chart]


def page(
    title: str, models: Sequence[Model], view: View, words: int, frequency: Tensor, command: str
) -> str:
    """The whole report.

    Args:
        title: names the data and the split.
        models: the models; the best of them has no `difference`.
        view: the view of the data's domain.
        words: number of words in the split; 0 for data without words.
        frequency: (V,) occurrences of each token in the training data of the first model.
        command: that made the page.
    """
    best = next(model for model in models if model.difference is None)
    items = {model.name: item_of(model) for model in models}
    others = [model.name for model in models if model is not best]
    return render(
        "comparison.html",
        title,
        command,
        count=len(best.scores.tokens),
        names=[model.name for model in models],
        table=lines(models, view.domain.unit, words),
        seeds=max(model.seeds for model in models),
        charts=charts(models, frequency),
        colours=COLOURS,
        heading=view.heading,
        shown=[(model.name, model.shown.html()) for model in models],
        best=best.name,
        differences=[
            (name, view.difference(items[best.name], items[name], (best.name, name)))
            for name in others
        ],
        surprises=[(name, view.surprise(item)) for name, item in items.items()],
    )


def item_of(model: Model) -> ItemScores:
    """The scores of the split as one item, without alternatives."""
    tokens, nats = model.scores.tokens, model.scores.nats
    nothing = torch.empty(len(tokens), 0)
    return ItemScores(Item(model.name, tokens), nats, nothing, nothing.long(), nothing)
