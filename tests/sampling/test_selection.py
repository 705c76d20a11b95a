"""Truncations and draws of large vocabularies equal their definition by a full sort or a full sum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from arlm.core import Spec
from arlm.sampling import rows, selection
from arlm.sampling.inverse_cdf import draw
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.processors.epsilon import Epsilon
from arlm.sampling.processors.eta import Eta
from arlm.sampling.processors.min_p import MinP
from arlm.sampling.processors.synth_id import SynthId
from arlm.sampling.processors.top_h import TopH
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.processors.top_p import TopP
from arlm.sampling.processors.typical import Typical
from arlm.sampling.selection import argmax, exponentials, top_k, top_p

DTYPES = torch.float32, torch.float64, torch.bfloat16, torch.float16


def by_sorting(row: torch.Tensor, p: float) -> list[int]:
    """The nucleus, in the words of its definition."""
    weights = (row.double() - row.double().max()).exp().numpy()
    order = np.argsort(-weights, kind="stable")
    goal, kept, before = (p - 1e-12) * math.fsum(weights), [], []
    for token in order.tolist():
        if kept and math.fsum(before) >= goal:
            break
        kept.append(token)
        before.append(weights[token])
    return sorted(kept)


def by_sum(row: torch.Tensor, noise: float) -> int:
    """The token that an inverse CDF selects."""
    cumulative = (row.double() - row.double().max()).exp().cumsum(-1)
    return int((cumulative <= noise * cumulative[-1] * (1 - 2**-50)).sum())


def case(number: int, size: int) -> torch.Tensor:
    """A row of one of the kinds: peaked, flat, with ties, masked, of large numbers, and so on."""
    random = torch.Generator().manual_seed(number)
    row = torch.randn(size, generator=random)
    kind = number % 9
    if kind == 0:
        row *= 8
    elif kind == 1:
        row *= 0.01
    elif kind == 2:
        row = (row * 2).round()  # many ties
    elif kind == 3:
        row[torch.rand(size, generator=random) < (0.95 if number % 2 else 0.7)] = -torch.inf
        row[size // 2] = 1.0
    elif kind == 4:
        row = torch.zeros(size)
    elif kind == 5:
        row[1:] = -torch.inf
        row = row.roll(number)
    elif kind == 6:
        row = row * 2000  # most exponentials underflow
    elif kind == 7:
        row *= 1e-17  # different logits whose exponentials are equal
    else:
        row = row.sort(descending=bool(number % 2)).values * 3
    return row.to(DTYPES[number // 9 % 4])


def kept(row: torch.Tensor, truncated: torch.Tensor) -> list[int]:
    """Tokens that were kept, whose logits have not changed."""
    assert truncated.dtype == row.dtype
    left = truncated > -torch.inf
    assert torch.equal(truncated[left], row[left])
    return left.nonzero().flatten().tolist()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vocabularies of a few tokens take the way of large ones, and are divided many times."""
    monkeypatch.setattr(rows, "LARGE", 1)
    monkeypatch.setattr(selection, "SORTED", 8)
    monkeypatch.setattr(selection, "SAMPLE", 2)
    monkeypatch.setattr(selection, "FEW", 3)


@pytest.mark.usefixtures("small_parts")
class TestWithDivisions:
    def test_top_p_is_the_nucleus_of_the_definition(self) -> None:
        for number in range(3000):
            row = case(number, 1 + number % 97)
            p = (0.9, 0.05, 0.5, 0.999, 0.25, 1e-9, 0.75)[number % 7]
            expected = [i for i in by_sorting(row, p) if row[i] > -torch.inf]
            assert kept(row, top_p(row[None], p)[0]) == expected, (number, p)

    def test_top_p_stops_exactly_where_the_total_reaches_p(self) -> None:
        for size in (8, 64, 1024):
            row = torch.zeros(size)
            for count in range(1, size, 7):
                assert kept(row, top_p(row, count / size)) == list(range(count))

    def test_top_k_is_the_start_of_a_stable_sort(self) -> None:
        for number in range(3000):
            row = case(number, 1 + number % 97)
            k = 1 + number % 11
            order = row.sort(descending=True, stable=True).indices[:k].tolist()
            expected = sorted(i for i in order if row[i] > -torch.inf)
            assert kept(row, top_k(row[None], k)[0]) == expected, (number, k)

    def test_draw_is_the_inverse_of_the_whole_sum(self) -> None:
        random = torch.Generator().manual_seed(0)
        for number in range(3000):
            row = case(number, 1 + number % 700)
            noise = torch.rand(1, generator=random, dtype=torch.float64)
            assert int(draw(row[None], noise)) == by_sum(row, float(noise)), number

    def test_extreme_noise_draws_tokens_with_a_probability(self) -> None:
        for noise in (0.0, 2.0**-53, 0.5, 1 - 2.0**-53):
            for number in range(300):
                row = case(number, 1 + number * 3)
                token = int(draw(row[None], torch.tensor([noise], dtype=torch.float64)))
                assert row[token].double() - row.max().double() > -690, (noise, number)


KINDS: list[LogitsProcessor] = [
    *(TopH(share) for share in (1e-9, 0.2, 0.4, 0.9, 0.999)),
    *(MinP(p) for p in (1e-9, 0.01, 0.3, 1.0)),
    *(Epsilon(epsilon) for epsilon in (1e-9, 0.002, 0.05, 0.9)),
    *(Eta(epsilon) for epsilon in (1e-9, 0.002, 0.05, 0.9)),
]


@pytest.mark.parametrize("processor", KINDS, ids=repr)
@pytest.mark.parametrize("parts", ["small_parts", "whole"])
def test_a_row_by_itself_is_truncated_as_all_in_one_call(
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    processor: LogitsProcessor,
    parts: str,
) -> None:
    if parts != "whole":
        request.getfixturevalue(parts)
    history = History(torch.zeros(1, 0).long(), *[torch.zeros(1).long()] * 2, Spec(2, (1,)))
    for number in range(300):
        row = case(number, 1 + number % 97)[None]
        monkeypatch.setattr(rows, "LARGE", 2**62)
        expected = processor(row, history)
        monkeypatch.setattr(rows, "LARGE", 1)
        assert torch.equal(processor(row, history), expected), number


def test_large_vocabularies_equal_the_definition() -> None:
    noise = torch.rand(36, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for number in range(36):
        row = case(number, 20011)
        goal = 0.9 - 1e-12
        weights = exponentials(row)
        ordered, order = weights.sort(descending=True, stable=True)
        size = max(1, int((ordered.cumsum(0) - ordered < goal * weights.sum()).sum()))
        expected = sorted(i for i in order[:size].tolist() if row[i] > -torch.inf)
        nucleus = top_p(row, 0.9)
        assert kept(row, nucleus) == expected, number
        for logits in (row, nucleus):
            drawn = int(draw(logits[None], noise[number, None]))
            assert drawn == by_sum(logits, float(noise[number]))


def test_rows_are_independent_of_their_batch() -> None:
    rows = torch.stack([case(9 * i, 5000) for i in range(6)]).expand(2, 6, 5000)
    noise = torch.linspace(0, 0.99, 6, dtype=torch.float64)
    for truncate in (lambda x: top_p(x, 0.8), lambda x: top_k(x, 50)):
        together = truncate(rows)
        alone = torch.stack([truncate(row[None])[0] for row in rows[0]])
        assert torch.equal(together, alone.expand(2, 6, 5000))
        assert torch.equal(truncate(rows[0].T.contiguous().T), alone)
    drawn = [int(draw(row[None], u[None])) for row, u in zip(rows[0], noise, strict=True)]
    assert draw(rows[0], noise).tolist() == drawn


def test_argmax_is_the_first_of_equal_ones() -> None:
    for number in range(300):
        row = case(number, 1 + number)
        assert int(argmax(row[None])) == row.tolist().index(max(row.tolist()))


def test_gradients_pass_to_the_tokens_that_were_kept() -> None:
    for truncate in (lambda x: top_p(x, 0.5), lambda x: top_k(x, 10)):
        row = case(0, 3000).requires_grad_()
        out = truncate(row[None])[0]
        left = out > -torch.inf
        out[left].sum().backward()
        assert torch.equal(row.grad, left.float())


def test_rows_without_probabilities_draw_no_token() -> None:
    row = torch.full((1, 3000), -torch.inf)
    assert torch.equal(top_p(row, 0.9), row)
    for value in (-torch.inf, torch.nan):
        drawn = draw(row.index_fill(1, torch.tensor([5]), value), torch.zeros(1).double())
        assert drawn.tolist() == [3000]


@pytest.mark.parametrize("processor", [SynthId(1), Typical(0.5), TopP(0.5), TopK(9)], ids=str)
def test_large_rows_take_part_in_a_gradient(processor: LogitsProcessor) -> None:
    logits = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
    before = History(
        torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]),
        *torch.tensor([[4, 4], [0, 0]]),
        Spec(5000, (9,)),
    )
    expected, tracked = processor(logits, before), logits.clone().requires_grad_()
    found = processor(tracked, before)
    same = (found.softmax(-1) - expected.softmax(-1)).abs().max()
    assert same < 1e-6
    (gradient,) = torch.autograd.grad(found[found > -torch.inf].sum(), tracked)
    assert gradient.isfinite().all()
    assert gradient.any()
