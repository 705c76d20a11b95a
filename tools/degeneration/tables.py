"""The figures as a table in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tools.degeneration.measures import KINDS, Measured

#: name of the figure, head of its column, decimals
COLUMNS = (
    ("perplexity", "perplexity", 2),
    ("judge_perplexity", "under the 5-gram", 1),
    ("log_prob", "log p a character", 2),
    ("repeated_4", "repeated 4-grams, %", 1),
    ("loops", "end in a loop, %", 0),
    ("diversity", "diversity, %", 0),
    ("distinct_1", "distinct-1, %", 1),
    ("distinct_2", "distinct-2, %", 1),
    ("distinct_3", "distinct-3, %", 1),
    ("self_bleu", "self-BLEU", 1),
    ("zipf", "Zipf", 2),
)


def number(value: float, decimals: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is aligned to the left, and the others to the right."""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def figures_table(found: Mapping[str, Measured]) -> str:
    """Repetition, diversity and likelihood of each method."""
    rows = [
        [name, *(number(one.figures[key], decimals) for key, _, decimals in COLUMNS)]
        for name, one in found.items()
    ]
    return table(["method", *(head for _, head, _ in COLUMNS)], rows)


def rates_table(found: Mapping[str, Measured]) -> str:
    """Characters of each kind in 100 characters."""
    rows = [[name, *(number(one.rates[k], 1) for k in KINDS)] for name, one in found.items()]
    return table(["in 100 characters", *KINDS], rows)
