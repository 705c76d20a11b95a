"""Likelihood adds, and divides last."""

import math

import pytest
import torch

from arlm.core import Batch
from arlm.evaluation.metric import Likelihood


def batch(scored: list[list[bool]], units: list[list[float]]) -> Batch:
    return Batch(
        torch.zeros(len(scored), len(scored[0])).long(), torch.tensor(scored), torch.tensor(units)
    )


def test_sums_are_divided_last() -> None:
    likelihood = Likelihood("byte")
    log_prob = torch.tensor([[-1.0, -2.0, -4.0]])
    likelihood.update(log_prob, batch([[True, True, False]], [[1, 3, 9]]))
    likelihood.update(log_prob * 2, batch([[False, False, True]], [[1, 3, 2]]))
    figures = likelihood.compute()
    assert figures["nll"] == pytest.approx(11 / 3)
    assert figures["ppl"] == pytest.approx(math.exp(11 / 3))
    assert figures["bits_per_byte"] == pytest.approx(11 / 6 / math.log(2))


def test_one_impossible_token_is_not_infinite_nor_lost() -> None:
    likelihood = Likelihood("dim")
    log_prob = torch.zeros(1, 100)
    log_prob[0, 3] = -120.0
    likelihood.update(log_prob, batch([[True] * 100], [[1.0] * 100]))
    assert likelihood.compute()["ppl"] == pytest.approx(math.exp(1.2))


def test_sums_stay_float64_in_half_precision() -> None:
    module = torch.nn.ModuleDict({"likelihood": Likelihood("dim")}).to(torch.bfloat16)
    likelihood = module["likelihood"]
    for _ in range(3):
        likelihood.update(torch.full((1, 1001), -0.1), batch([[True] * 1001], [[1.0] * 1001]))
    assert likelihood.tokens.dtype == torch.float64
    assert likelihood.tokens.item() == 3003
    likelihood.reset()
    assert likelihood.nats.dtype == torch.float64
    assert likelihood.nats.item() == 0


def test_weights_count_for_nats_tokens_and_units() -> None:
    tokens = torch.zeros(2, 3, dtype=torch.long)
    scored = torch.tensor([[True, False, True], [False, True, False]])
    units, weights = torch.full((2, 3), 2.0), torch.tensor([[3.0, 9.0, 1.0], [9.0, 0.5, 9.0]])
    log_prob = torch.tensor([[-1.0, -7.0, -2.0], [-7.0, -4.0, -7.0]])
    metric = Likelihood("byte")
    metric.update(log_prob, Batch(tokens, scored, units, weights=weights))
    assert (float(metric.nats), float(metric.tokens), float(metric.units)) == (7.0, 4.5, 9.0)
    metric.update(log_prob, Batch(tokens, scored, units))
    assert (float(metric.nats), float(metric.tokens), float(metric.units)) == (14.0, 7.5, 15.0)
