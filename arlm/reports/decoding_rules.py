"""Decoding rules as distributions: what each makes of the next token, and of whole rows, side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from arlm.reports.attention_map import axis_label
from arlm.reports.charts import STYLE, light
from arlm.sampling.enumeration import Enumeration

BAR, PANEL = 0.24, 1.35  # inches of a bar's width and of a panel's height
NEARLY = 1 - 1e-6  # sums of probabilities from which on no row is missing
LONG = 2  # characters of a label from which on it is turned


class Rule(NamedTuple):
    """A decoding rule at one prompt."""

    name: str
    network: Tensor  # (V,) nats of the next token under the network
    drawn: Tensor  # (V,) nats as it is drawn
    rows: Enumeration  # of the rows that begin with the prompt


def side_by_side(
    rules: Sequence[Rule],
    tokens: Sequence[int],
    texts: Sequence[str],
    rows: Tensor,
    names: Sequence[str],
) -> bytes:
    """A line of two panels for each rule, as PNG: wide faint bars are p, the network's, and narrow ones q, as drawn.

    Args:
        rules: of one network and prompt.
        tokens: to show, the likeliest first.
        texts: of these tokens.
        rows: (M, T) int64, whole rows to show.
        names: of these rows.
    """
    colours = light()
    ink = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")
    style: Any = STYLE | dict.fromkeys(ink, colours["ink"])
    style |= {"axes.edgecolor": colours["line"], "grid.color": colours["line"]}
    with matplotlib.rc_context(style):
        widths = [2.0 + BAR * len(tokens), 2.0 + BAR * len(rows)]
        longest = max(map(len, names))
        size = sum(widths), 0.5 + PANEL * len(rules) + 0.08 * (longest if longest > LONG else 0)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(rules), 2, sharex="col", squeeze=False, width_ratios=widths)
        for (left, right), rule in zip(panels, rules, strict=True):
            p, q = (nats[list(tokens)].exp() for nats in (rule.network, rule.drawn))
            _bars(left, p, q, colours)
            left.set_title(axis_label(rule.name), fontsize=9, loc="left")
            which = [_number(rule.rows, row) for row in rows]
            p, q = (_shown(nats, which) for nats in (rule.rows.log_prob, rule.rows.processed))
            _bars(right, p, q, colours)
            right.set_title(axis_label(caption(rule.rows)), fontsize=9, loc="left")
        for panel, labels in ((panels[-1][0], texts), (panels[-1][1], names)):
            turned = {"rotation": 90} if max(map(len, labels)) > LONG else {}
            shown = [axis_label(label) for label in labels]
            panel.set_xticks(range(len(labels)), shown, family="monospace", **turned)
        panels[-1][0].set_xlabel("next token")
        panels[-1][1].set_xlabel("row" if rules[0].rows.prompt == 0 else "continuation")
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def caption(rows: Enumeration) -> str:
    """-log q and -log p of a draw from q, and how much has not ended; if rows of q were left out, how much is listed."""
    network, drawn = (float(nats.exp().sum()) for nats in (rows.log_prob, rows.processed))
    if drawn < NEARLY:
        return f"enumerated: p {network:.3f}, q {drawn:.3f}"
    before, after = rows.mean_nats()
    text = f"a drawn row: {after:.2f} nats under q, {before:.2f} under p"
    if bool(rows.ended.any()) and network > NEARLY:
        text += f"; not ended: q {_mass(rows, False):.3f}, p {_mass(rows, True):.3f}"
    return text


def _mass(rows: Enumeration, network: bool) -> float:
    return float(rows.unended(network)[-1])


def _bars(panel: Any, p: Tensor, q: Tensor, colours: dict[str, str]) -> None:
    places = range(len(p))
    panel.bar(places, p.tolist(), color=colours["line"], width=0.9)
    panel.bar(places, q.tolist(), color=colours["c0"], width=0.45)
    panel.grid(axis="y", linewidth=0.6)
    panel.set_axisbelow(True)


def _number(rows: Enumeration, row: Tensor) -> int | None:
    """The number of a row; None if it is not listed."""
    same = (rows.tokens == row).all(1).nonzero()
    return int(same[0]) if len(same) else None


def _shown(nats: Tensor, which: Sequence[int | None]) -> Tensor:
    """Probabilities of some rows, 0 for those that are not listed."""
    return torch.tensor([0.0 if i is None else float(nats[i].exp()) for i in which])
