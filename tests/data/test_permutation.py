"""Orders of many rows, and documents of streams: computed, and equal to what lists would hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import arlm.data.order
from arlm.data.dataset import generator
from arlm.data.document_streams import DocumentStreams
from arlm.data.order import BatchOrder
from arlm.data.permutation import Permutation


def whole(size: int, *seed: int) -> Tensor:
    return Permutation(size, generator(*seed))[torch.arange(size)]


@given(st.integers(1, 3000), st.integers(0, 2**40))
@settings(deadline=None, max_examples=50)
def test_a_permutation_has_every_number_once(size: int, seed: int) -> None:
    found = whole(size, seed)
    assert torch.equal(found.sort().values, torch.arange(size))
    assert torch.equal(Permutation(size, generator(seed))[torch.arange(0, size, 7)], found[::7])


def chi_square(counts: Tensor) -> float:
    """Standard deviations by which counts of equally likely events vary too much."""
    expected = counts.sum().double() / counts.numel()
    freedom = counts.numel() - 1
    return float(((counts - expected).square().sum() / expected - freedom) / (2 * freedom) ** 0.5)


def test_permutations_are_uniform() -> None:
    size = 2**19 + 3
    found, places = whole(size, 5), torch.arange(size)
    cells = places * 40 // size * 40 + found * 40 // size
    assert abs(chi_square(cells.bincount(minlength=1600))) < 5
    steps = found.diff().remainder(size) * 1000 // size
    assert abs(chi_square(steps.bincount(minlength=1000))) < 5
    assert int((found == whole(size, 6)).sum()) < 10
    few = torch.stack([whole(7, seed) for seed in range(3000)])  # every element at every place
    for column in few.unbind(1):
        assert abs(chi_square(column.bincount(minlength=7))) < 5
    pairs = few[:, 0] * 7 + few[:, 1]
    assert abs(chi_square(pairs.bincount(minlength=49)[pairs.unique()])) < 5
    assert len(pairs.unique()) == 42


def batches(*given: int, skip: int = 0, epoch: int = 0, seed: int = 0) -> list[Tensor]:
    """Batches of `BatchOrder(rows, batch_size)` of a process."""
    rows, batch_size, rank, world_size = given
    order = BatchOrder(rows, batch_size, True, seed, rank, world_size)
    order.set_epoch(epoch)
    order.skip = skip
    found = [each.chosen for each in order]
    assert len(found) == len(order) - skip
    return found


@pytest.mark.parametrize("held", [2**22, 50])
def test_training_rows_come_once_in_an_epoch(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arlm.data.order, "HELD", held)
    one = batches(103, 10, 0, 1)
    two = [batches(103, 5, rank, 2) for rank in (0, 1)]
    assert len(torch.cat(one).unique()) == 100
    # Two processes read the rows of one with twice the batch.
    for whole_batch, *halves in zip(one, *two, strict=True):
        assert torch.equal(whole_batch, torch.cat(halves))
    for after, before in zip(batches(103, 10, 0, 1, skip=4), one[4:], strict=True):
        assert torch.equal(after, before)
    assert not torch.equal(torch.cat(batches(103, 10, 0, 1, epoch=1)), torch.cat(one))
    assert not torch.equal(torch.cat(batches(103, 10, 0, 1, seed=1)), torch.cat(one))
    expected = torch.randperm(103, generator=generator(0, 0))[:100]
    assert torch.equal(torch.cat(one), expected) == (held > 103)  # the order of recorded runs


def test_the_order_of_many_rows_takes_no_memory() -> None:
    order = BatchOrder(2**40, 4, True)  # 8 TB of numbers
    assert (
        len({int(row) for rows, _ in zip(order, range(9), strict=False) for row in rows.chosen})
        == 36
    )
    evaluation = BatchOrder(2**40, 4, False)
    assert next(iter(evaluation)).chosen.tolist() == [0, 1, 2, 3]


def as_lists(
    firsts: list[int], sizes: list[int], order: list[int], length: int, streams: int
) -> list[list[tuple[int, int, bool]]]:
    """What each stream reads in each row, by the definition."""
    found: list[list[tuple[int, int, bool]]] = [[] for _ in range(streams)]
    for document in order:
        stream = min(found, key=len)
        first, size = firsts[document], sizes[document]
        for start in range(0, size, length):
            stream.append((first + start, first + size, start == 0))
    longest = max(map(len, found))
    return [rows + [(0, 0, True)] * (longest - len(rows)) for rows in found]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 5))
@settings(deadline=None)
def test_documents_of_streams_are_those_of_lists(
    sizes: list[int], length: int, streams: int
) -> None:
    ends = torch.tensor(sizes).cumsum(0)
    firsts = ends - torch.tensor(sizes)
    order = torch.randperm(len(sizes), generator=generator(len(sizes), length))
    expected = as_lists(firsts.tolist(), sizes, order.tolist(), length, streams)
    found = DocumentStreams(firsts, torch.tensor(sizes), order, length, streams)
    assert found.rows == len(expected[0])
    for stream, rows in enumerate(expected):
        columns = found(torch.arange(len(rows)), torch.full((len(rows),), stream))
        assert list(zip(*(column.tolist() for column in columns), strict=True)) == rows
