"""Wilson's interval: its definition, its ends, and how often it holds."""

from __future__ import annotations

import math

import pytest

from arlm.errors import UserError
from arlm.evaluation.proportion import proportion


@pytest.mark.parametrize(("successes", "trials"), [(1, 10), (9, 10), (50, 100), (81, 263)])
def test_the_ends_are_those_that_a_test_would_not_refuse(successes: int, trials: int) -> None:
    """|share - p| = 1.96 standard errors under p, at both ends."""
    found = proportion(successes, trials)
    assert found.share == successes / trials
    for p in (found.low, found.high):
        error = math.sqrt(p * (1 - p) / trials)
        assert abs(found.share - p) == pytest.approx(1.959964 * error, rel=1e-6)


def test_none_and_all() -> None:
    # 1 / (1 + n / z^2)
    assert proportion(0, 10) == (0, 0, pytest.approx(0.277533, abs=1e-6))
    assert proportion(10, 10) == (1, pytest.approx(0.722467, abs=1e-6), 1)


def test_it_holds_about_as_often_as_it_says() -> None:
    for trials, p in ((50, 0.03), (50, 0.5), (200, 0.9)):
        holds = 0.0
        for k in range(trials + 1):
            _, low, high = proportion(k, trials)
            if low <= p <= high:
                holds += math.comb(trials, k) * p**k * (1 - p) ** (trials - k)
        assert 0.93 < holds < 0.98


def test_numbers_that_are_none() -> None:
    for arguments, name in (((1, 0), "trials"), ((3, 2), "successes"), ((1, 2, 1.0), "confidence")):
        with pytest.raises(UserError, match=f"{name}: "):
            proportion(*arguments)
