"""The mass of rows that never end: exact in a bigram for every truncation, with the remedy, and by drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import laws
import pytest
import torch
from bigram_table import BIGRAM, END, bigram
from processor_cases import TRUNCATIONS

from arlm.core import Autoregressor, Spec
from arlm.errors import UserError
from arlm.models.rnn import LSTMLanguageModel
from arlm.sampling.enumeration import Enumeration, enumerate_rows
from arlm.sampling.processors import parse_processors
from arlm.sampling.processors.constraint import Constraint
from arlm.sampling.processors.keep_end import KeepEnd
from arlm.sampling.processors.mirostat import Mirostat
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_p import TopP
from arlm.sampling.unended import clopper_pearson, unended


def of(net: Autoregressor, chain: str) -> Enumeration:
    return enumerate_rows(net, processors=parse_processors(chain))


def markov(after: Sequence[Sequence[float]], length: int) -> list[float]:
    """The mass of a bigram without an end after 0 to `length` tokens, by powers of its matrix."""
    matrix = torch.tensor(after, dtype=torch.float64)
    live = matrix[-1, :END]
    found = [1.0]
    for _ in range(length):
        found.append(float(live.sum()))
        live = live @ matrix[:END, :END]
    return found


@pytest.mark.parametrize("network", [False, True])
def test_the_mass_without_an_end_is_that_of_the_chain(network: bool) -> None:
    rows = of(bigram(8), "top_k=1:keep_end=true")
    q = [[0, 7 / 8, 1 / 8], [6 / 7, 0, 1 / 7], [0, 0, 1], [10 / 11, 0, 1 / 11]]
    expected = markov(BIGRAM if network else q, 8)
    assert rows.unended(network).tolist() == pytest.approx(expected)
    least = 0.05 if network else 1 / 11  # of the probabilities of an end
    assert all(mass <= (1 - least) ** n for n, mass in enumerate(expected))


def test_the_mass_without_an_end_counts_drawn_tokens() -> None:
    rows = enumerate_rows(bigram(6), prompt=torch.tensor([0, 1]))
    assert rows.unended().tolist() == pytest.approx([1, 0.9, 0.81, 0.9**3, 0.9**4])
    assert rows.unended()[0] == pytest.approx(1)


# Of each truncation one that drops the end wherever it has 1/20 to 1/10.
DROPPING = {
    "greedy",
    "top_k=2",
    "top_p=0.85",
    "min_p=0.3",
    "typical=0.8",
    "epsilon=0.11",
    "eta=0.5",
    "top_n_sigma=1",
    "top_h=0.6",
    "mirostat=0.6",
}
END_LEAST, LONG = 0.05, 12


def test_each_truncation_is_here() -> None:
    """But XTC, which drops likely tokens, and keep_end, the remedy."""
    kinds = {type(one) for text in DROPPING for one in parse_processors(text)}
    assert {kind.__name__ for kind in TRUNCATIONS - kinds} == {"Xtc", "KeepEnd"}


@pytest.mark.parametrize("chain", sorted(DROPPING))
def test_a_truncation_may_end_no_row_and_keep_end_ends_all(chain: str) -> None:
    """Without it the mass that has not ended stays 1; with it, it is at most that of the network's least end."""
    before = of(bigram(LONG), chain).unended()
    assert (before - 1).abs().max() < 1e-12
    after = of(bigram(LONG), f"{chain}:keep_end=true").unended()
    assert (after.diff() < 0).all()
    bound = (1 - END_LEAST) ** torch.arange(LONG + 1).double()
    assert (after <= bound + 1e-12).all()
    assert after[-1] < 0.5


def test_a_later_truncation_may_drop_the_end_again() -> None:
    again = of(bigram(LONG), "top_p=0.85:keep_end=true,top_k=2").unended()
    assert (again - 1).abs().max() < 1e-12
    both = of(bigram(LONG), "top_p=0.85:keep_end=true,top_k=2:keep_end=true").unended()
    assert both[-1] < 0.5


def test_keep_end_keeps_the_memory_of_what_it_applies() -> None:
    """Mirostat's surprise is that among what was kept, the end included: by hand, after the token b.

    mu is 1.8 bits, so that of the first token a and b are kept; b has 1.15 bits beside the end, and 1.08 without it.
    After b, mu is 1.724 or would be 1.747; b has 1.737 bits there, and is dropped.
    """
    held = KeepEnd(Mirostat(0.9, rate=0.3))
    rows = enumerate_rows(bigram(2), processors=[held])
    assert float(rows.processed.exp()[rows.lengths == 1]) == pytest.approx(0.05)
    expected = {(1, 0): 0.45 * 0.6 / 0.7, (1, END): 0.45 * 0.1 / 0.7}
    found = dict(zip(map(tuple, rows.tokens.tolist()), rows.processed.exp().tolist(), strict=True))
    for row, probability in expected.items():
        assert found[row] == pytest.approx(probability)
    assert found[1, 1] == 0
    assert held.finished(held.init(2, torch.device("cpu"))) is None
    assert KeepEnd(TopP(0.5)).init(3, torch.device("cpu")) is None


def test_keep_end_holds_nothing_that_ends_rows_itself() -> None:
    for held in (Constraint(regex="a"), KeepEnd(TopK(2))):
        with pytest.raises(UserError, match="keep_end: it cannot hold"):
            KeepEnd(held)


def test_intervals_are_those_of_clopper_and_pearson() -> None:
    """Closed forms at the ends, a value of the tables, and the coverage summed over all outcomes."""
    assert clopper_pearson(0, 10) == pytest.approx((0, 1 - 0.025**0.1))
    assert clopper_pearson(10, 10) == pytest.approx((0.025**0.1, 1))
    assert clopper_pearson(5, 10) == pytest.approx((0.1871, 0.8129), abs=5e-5)
    low, high = clopper_pearson(1, 10, level=0.9)
    assert (low, high) == pytest.approx((1 - 0.95**0.1, 0.3942), abs=5e-5)
    intervals = [clopper_pearson(hits, 20) for hits in range(21)]
    for share in (0.02, 0.1, 0.37, 0.5, 0.93):
        covered = sum(
            math.comb(20, hits) * share**hits * (1 - share) ** (20 - hits)
            for hits, (low, high) in enumerate(intervals)
            if low <= share <= high
        )
        assert 0.95 <= covered < 1


@pytest.mark.parametrize("chain", ["", "top_k=2", "top_k=1:keep_end=true", "frequency_penalty=1"])
def test_shares_of_drawn_rows_are_the_enumerated_mass(chain: str) -> None:
    given: dict[str, Any] = {"processors": parse_processors(chain)}
    exact = of(bigram(6), chain).unended()
    for one in unended(bigram(6), [1, 2, 4, 6], 4000, seed=1, **given):
        low, high = clopper_pearson(round(one.share * 4000), 4000)
        assert (one.low, one.high) == (low, high)
        assert one.low - 0.01 <= exact[one.after] <= one.high + 0.01
        assert one.low <= one.share <= one.high


def test_a_row_that_ends_with_its_last_token_has_ended() -> None:
    """The table ends every row with its second token."""
    table = ((0.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.0))
    found = unended(bigram(2, table), [1, 2], rows=7)
    assert [one.share for one in found] == [1.0, 0.0]
    assert unended(laws.lively(LSTMLanguageModel(Spec(3, (4,)), 4, 1)), [4], 3)[0].share == 1


@pytest.mark.parametrize("given", [([], 5), ([0], 5), ([3], 0)])
def test_numbers_out_of_range_are_refused(given: tuple[list[int], int]) -> None:
    with pytest.raises(UserError, match=r"^(after|rows): "):
        unended(bigram(4), *given)
