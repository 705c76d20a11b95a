"""A share of successes with its interval.

References:
    | Probable Inference, the Law of Succession, and Statistical Inference (Wilson, 1927)
    | https://doi.org/10.1080/01621459.1927.10502953
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

from arlm.errors import require


class Proportion(NamedTuple):
    """A share and its interval, between 0 and 1."""

    share: float
    low: float
    high: float


def proportion(successes: int, trials: int, confidence: float = 0.95) -> Proportion:
    """The share of successes, with Wilson's score interval, which holds for shares near 0 and 1 too.

    Args:
        successes: 0 to `trials`.
        trials: independent ones, at least 1.
        confidence: of the interval, in (0, 1).
    """
    require(trials >= 1, "trials", trials, "give at least one")
    require(0 <= successes <= trials, "successes", successes, f"choose 0 to {trials}")
    require(0 < confidence < 1, "confidence", confidence, "choose between 0 and 1")
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    share = successes / trials
    middle = share + z2 / (2 * trials)
    half = math.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2)))
    # Exactly 0 and 1 at the ends, where rounding would be just beyond.
    low = 0.0 if successes == 0 else (middle - half) / (1 + z2 / trials)
    high = 1.0 if successes == trials else (middle + half) / (1 + z2 / trials)
    return Proportion(share, low, high)
