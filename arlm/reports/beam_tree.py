"""Beam searches as trees: a picture, or a page on which a long search is scrolled."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure

from arlm.inference.beam_tree import BeamTree, Node
from arlm.reports.attention_map import axis_label
from arlm.reports.charts import PAGE, STYLE, light, svg
from arlm.reports.files import PAGES, write_bytes, write_text
from arlm.reports.page import render
from arlm.reports.tokens import visible
from arlm.reports.view import View

STEPS = 60  # of a search that a picture has; a page has all of them
TAIL = 8  # last tokens of a prefix that are decoded to find the text of its last one
START = 24  # letters of the prompt that are shown
ROW, LETTER, GAP, MARGIN = 0.42, 0.085, 0.3, 0.25  # inches
KEY = (
    "Under a token: log-probability of the prefix that ends with it, in nats. Boxed: the score of a finished row, "
    "its log-probability over the length normalisation. Thick: the best row."
)


@dataclass(frozen=True)
class Search:
    """A search, laid out in inches.

    Args:
        title: what was searched for.
        tree: of the search.
        view: has the texts of tokens.
        start: text of the prompt.
        most: steps to show; None for all.
    """

    title: str
    tree: BeamTree
    view: View
    start: str = ""
    most: int | None = None

    @cached_property
    def shown(self) -> dict[int, Node]:
        """The nodes that are drawn, by index."""
        most = float("inf") if self.most is None else self.most
        return {i: node for i, node in enumerate(self.tree.nodes) if len(node.tokens) <= most}

    @cached_property
    def labels(self) -> dict[int, str]:
        """The text of each node's last token; of the root, the end of the prompt."""
        found = {0: visible(self.start[-START:]) if self.start else "start"}
        for index, node in list(self.shown.items())[1:]:
            piece = self.view.pieces(torch.tensor(node.tokens[-TAIL:]))[-1]
            found[index] = visible("<end>" if piece == "<end>\n" else piece)
        return found

    @cached_property
    def rows(self) -> list[int]:
        """The row of each node."""
        return layout(self.tree)

    @cached_property
    def lefts(self) -> list[float]:
        """Where each column begins, and where the last one ends."""
        letters: dict[int, int] = {}
        for index, node in self.shown.items():
            score = 0 if node.score is None else 8
            column = len(node.tokens)
            letters[column] = max(letters.get(column, 5), len(self.labels[index]) + score)
        found = [MARGIN]
        for column in range(len(letters)):
            found.append(found[-1] + LETTER * letters[column] + GAP)
        return found

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        return self.lefts[-1], ROW * (1 + bool(self.title) + max(self.rows[i] for i in self.shown))


def layout(tree: BeamTree) -> list[int]:
    """The row of each node, where its column is its length; the best row and its prefixes are in row 0.

    A path goes on to the child that leads to the best finished row, or, without one, to the longest prefix. The
    other children are below, each in the first row that is free from its column to the end of its own path.
    """
    worth = [(-float("inf"), 0)] * len(tree.nodes)  # best score and longest prefix below a node
    for index in reversed(range(len(tree.nodes))):  # children come after their parents
        node = tree.nodes[index]
        score = -float("inf") if node.score is None else node.score
        worth[index] = max([(score, len(node.tokens)), *(worth[child] for child in node.children)])
    rows = [0] * len(tree.nodes)
    free = [0] * (1 + max(len(node.tokens) for node in tree.nodes))
    waiting = [0]  # first nodes of paths; those that are deeper in the same path come first
    while waiting:
        path = [waiting.pop()]
        others: list[int] = []
        while children := tree.nodes[path[-1]].children:
            first, *rest = sorted(children, key=worth.__getitem__, reverse=True)
            others += reversed(rest)
            path.append(first)
        begin = len(tree.nodes[path[0]].tokens)
        row = max(free[begin : begin + len(path)])
        for column, index in enumerate(path, start=begin):
            rows[index], free[column] = row, row + 1
        waiting += others
    return rows


def number(value: float) -> str:
    """A log-probability with two digits, without the sign of what rounds to 0."""
    return f"{value:.2f}".replace("-0.00", "0.00")


def picture(searches: Sequence[Search]) -> bytes:
    """All searches, one below the other, as PNG."""
    file = io.BytesIO()
    _figure(searches, light(), KEY).savefig(file, format="png", dpi=100)
    return file.getvalue()


def page(searches: Sequence[Search], title: str, command: str) -> str:
    """All searches as a page."""
    style: Any = STYLE | {"svg.hashsalt": title}
    with matplotlib.rc_context(style):
        untitled = [replace(one, title="") for one in searches]
        trees = [svg(_figure([one], PAGE)) for one in untitled]
    drawn = zip((one.title for one in searches), trees, strict=True)
    return render("trees.html", title, command, trees=list(drawn))


def _figure(searches: Sequence[Search], colours: Mapping[str, str], key: str = "") -> Figure:
    """Searches one below the other, with a last line `key`, in a figure that is as large as they are."""
    wide = max(LETTER * 0.75 * len(key), *(search.size[0] for search in searches)) + MARGIN
    high = sum(search.size[1] for search in searches) + MARGIN * (2 if key else 1)
    figure = Figure(figsize=(wide, high))
    figure.set_layout_engine("none")
    panel = figure.add_axes((0, 0, 1, 1))
    panel.set(xlim=(0, wide), ylim=(high, 0))  # inches from the top left
    panel.axis("off")
    top = MARGIN / 2
    for search in searches:
        _draw(panel, search, top, colours)
        top += search.size[1]
    panel.text(MARGIN, high - MARGIN, key, fontsize=7.5, color=colours["faint"], va="center")
    return figure


def _draw(panel: Any, search: Search, top: float, colours: Mapping[str, str]) -> None:
    """Draw one search below `top`."""
    tree = search.tree
    if search.title:
        panel.text(MARGIN, top + ROW / 2, axis_label(search.title), fontsize=10, weight="bold",
                   color=colours["ink"], va="center")  # fmt: skip
        top += ROW
    finished = tree.finished
    best = set(tree.path(finished[0])) if finished else set()
    for index, node in search.shown.items():
        text = axis_label(search.labels[index])
        x, y = search.lefts[len(node.tokens)], top + ROW * (search.rows[index] + 0.5)
        won = index in best
        colour = colours[
            "c0" if won else "ink" if node.children or node.score is not None else "faint"
        ]
        if node.parent is not None:
            parent = tree.nodes[node.parent]
            end = search.lefts[len(parent.tokens)] + LETTER * len(search.labels[node.parent]) + 0.04
            bend, above = x - GAP / 2, top + ROW * (search.rows[node.parent] + 0.5)
            panel.plot((end, bend, bend, x - 0.05), (above, above, y, y),
                       color=colours["c0" if won else "line"], linewidth=2.4 if won else 1.2,
                       solid_joinstyle="round", zorder=2 if won else 1)  # fmt: skip
            panel.text(
                x,
                y + 0.15,
                number(node.log_prob),
                fontsize=6.5,
                color=colours["faint"],
                va="center",
            )
        panel.text(x, y, text, fontsize=10, family="monospace", weight="bold" if won else "normal",
                   color=colour, va="center")  # fmt: skip
        if node.score is not None:
            box = {"boxstyle": "round,pad=0.25", "facecolor": "none",
                   "edgecolor": colours["c0" if won else "line"]}  # fmt: skip
            panel.text(x + LETTER * (len(text) + 1), y, number(node.score), fontsize=8, color=colour,
                       va="center", bbox=box)  # fmt: skip


def write_tree(searches: Sequence[Search], path: Path, command: str) -> Path:
    """Write a picture, which has the first `STEPS` steps of each search, or a page, which has all of them."""
    if path.suffix.lower() in PAGES:
        return write_text(page(searches, "Beam search", command), path)
    for search in searches:
        steps = max(len(node.tokens) for node in search.tree.nodes)
        if steps > STEPS:
            print(
                f"note: the picture has {STEPS} of {steps} steps; a page (.html) has all of them",
                file=sys.stderr,
            )
    return write_bytes(picture([replace(each, most=STEPS) for each in searches]), path)
