"""How many rows have not ended after so many tokens, by drawing: for networks whose rows cannot be enumerated.

`arlm.sampling.enumeration` has the exact figure for small ones.

References:
    | Consistency of a Recurrent Language Model With Respect to Incomplete Decoding (Welleck et al., 2020), section 6:
    | the non-termination ratio | https://arxiv.org/abs/2002.02492
    | The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial (Clopper, Pearson, 1934)
    | https://doi.org/10.1093/biomet/26.4.404
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from arlm.core import Autoregressor
from arlm.errors import require
from arlm.sampling.generate import generate
from arlm.sampling.noise import row_seeds
from arlm.sampling.watermark import binomial_tail

HALVINGS = 50  # of the interval in which a limit is searched


class Unended(NamedTuple):
    """The share of rows that have not ended after some tokens, with a 95 % interval (Clopper and Pearson)."""

    after: int  # tokens, the prompt included
    share: float
    low: float
    high: float


def unended(
    net: Autoregressor,
    after: Sequence[int],
    rows: int = 1000,
    seed: int = 0,
    **arguments: Any,
) -> list[Unended]:
    """Draw rows, and count those that have not ended after each number of tokens.

    Args:
        net: the network.
        after: numbers of tokens, the prompt included; the longest is that of the rows.
        rows: that are drawn.
        seed: of the rows.
        arguments: of `generate`, such as processors and forced.
    """
    require(rows >= 1, "rows", rows, "choose at least 1")
    require(len(after) >= 1 and min(after) >= 1, "after", list(after), "give numbers of at least 1")
    drawn = generate(net, row_seeds(seed, rows), max(after), **arguments)
    full = torch.tensor([reason == "length" for reason in drawn.finish])
    found = []
    for tokens in after:
        lasting = int(((drawn.lengths.cpu() > tokens) | full).sum())
        found.append(Unended(tokens, lasting / rows, *clopper_pearson(lasting, rows)))
    return found


def clopper_pearson(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of the shares under which neither so few hits nor so many are rarer than (1 - level) / 2."""
    return _lowest(hits, trials, level), 1 - _lowest(trials - hits, trials, level)


def _lowest(hits: int, trials: int, level: float) -> float:
    """The share of which so many hits, or more, have probability (1 - level) / 2."""
    if hits == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        rare = binomial_tail(hits, trials, middle) < (1 - level) / 2
        low, high = (middle, high) if rare else (low, middle)
    return low
