"""The first tokens of an order are those of a full sort, whatever way they are found."""

from __future__ import annotations

import pytest
import torch

from arlm.sampling.prefixes import BISECTED, first_tokens
from arlm.sampling.processors import History
from arlm.sampling.processors.top_h import TopH
from arlm.sampling.processors.typical import Typical


def by_sorting(keys: torch.Tensor, weights: torch.Tensor, goal: float) -> list[bool]:
    """Of one row, in plain Python."""
    taken, total = [False] * len(keys), 0.0
    for i in sorted(range(len(keys)), key=lambda i: float(keys[i])):
        if any(taken) and total >= goal:
            break
        taken[i] = True
        total += float(weights[i])
    return taken


@pytest.mark.parametrize("spread", [0.5, 4.0, 12.0])
@pytest.mark.parametrize("ties", [False, True])
def test_is_the_beginning_of_a_sorted_row(spread: float, ties: bool) -> None:
    size = 5 * BISECTED
    nats = torch.randn(3, size, generator=torch.Generator().manual_seed(4)).double() * spread
    if ties:
        nats = nats.round()
    weights, keys = nats.softmax(-1), -nats
    for goal in (1e-15, 0.3, 0.9, 0.9999, 1 - 1e-9, 2.0):
        kept = first_tokens(keys, weights, torch.full((3, 1), goal, dtype=torch.float64))
        for row in range(3):
            expected = by_sorting(keys[row], weights[row], goal)
            assert kept[row].tolist() == expected, goal


def test_a_row_does_not_depend_on_the_others() -> None:
    random = torch.Generator().manual_seed(6)
    spreads = torch.tensor([[0.1], [1.0], [5.0], [9.0]])
    logits = torch.randn(4, 20_000, generator=random) * spreads
    history = History(torch.zeros(4, 0).long(), *[torch.zeros(4).long()] * 2, None)  # type: ignore[arg-type]
    for processor in (Typical(0.9), TopH(0.5)):
        together = processor(logits, history)
        for row in range(4):
            assert torch.equal(processor(logits[row : row + 1], history)[0], together[row])
