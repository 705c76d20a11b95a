"""Likelihood adds and divides last; baselines are distributions, and the figures of the anchors hold."""

import itertools
import math

import pytest
import torch

from arlm.core import Batch, Spec
from arlm.errors import UserError
from arlm.evaluation.baselines import Histogram, NGram, Uniform
from arlm.evaluation.metric import Likelihood
from arlm.inference.baselines import baselines
from datamodules.digits import Digits, images


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


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ngram_is_a_distribution(order: int) -> None:
    stream = torch.randint(3, (60,), generator=torch.Generator().manual_seed(order))
    model = NGram(stream, order, 3)
    everything = torch.tensor(list(itertools.product(range(3), repeat=5)))
    total = model.log_prob(everything).sum(-1).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-12)


def test_ngram_by_hand() -> None:
    # a b a b a c: bigrams ab ab ba ba ac; left neighbours of a: {b}, b: {a}, c: {a}
    stream = torch.tensor([0, 1, 0, 1, 0, 2])
    model = NGram(stream, 2, 3)
    discount_1, discount_2 = 0.5, 1 / (1 + 2 * 2)  # no count is 2 below; ac once, ab and ba twice
    unigram = (1 - discount_1) / 3 + discount_1 * 3 / 3 / 3
    expected = (2 - discount_2 + discount_2 * 2 * unigram) / 3  # b after a, seen 2 of 3 times
    assert model.log_prob(torch.tensor([[0, 1]]))[0, 1].exp().item() == pytest.approx(expected)


def test_ngram_learns_and_refuses_what_does_not_fit() -> None:
    stream = torch.tensor([0, 1, 2, 3] * 50)
    nats = [-NGram(stream, order, 4).log_prob(stream[None]).mean().item() for order in (1, 2)]
    assert nats[1] < 0.1 < 1.3 < nats[0]
    with pytest.raises(UserError, match="9-grams of 256 tokens"):
        NGram(stream, 9, 256)


def test_ngram_beats_the_unigram_on_english_and_not_by_cheating() -> None:
    from datamodules.python_docs import PythonDocs

    data = PythonDocs()
    models = baselines(data)
    assert list(models) == ["uniform", "unigram", "5-gram"]
    test = data.corpus("test").whole()[None]
    bits = {k: -(m(test).mean() / math.log(2)).item() for k, m in models.items()}
    assert bits["uniform"] == pytest.approx(math.log2(97))
    assert 1.7 < bits["5-gram"] < 2.4 < 4.5 < bits["unigram"] < 5


def test_pixel_histogram_of_all_digits_is_2_413_bits() -> None:
    rows = images().flatten(1).long()
    in_sample = Histogram(rows, 17, smoothing=0).log_prob(rows)
    assert -in_sample.mean().item() / math.log(2) == pytest.approx(2.4127, abs=5e-4)
    uniform = Uniform(Spec(17, (8, 8, 1))).log_prob(rows)
    assert -uniform.mean().item() / math.log(2) == pytest.approx(4.0875, abs=1e-4)


def test_baselines_of_images() -> None:
    data = Digits()
    models = baselines(data)
    assert list(models) == ["uniform", "pixel histogram"]
    tokens = data.dataset("test").tokens.long()
    assert torch.isfinite(models["pixel histogram"](tokens)).all()
    table = Histogram(tokens, 17).table
    assert torch.allclose(table.exp().sum(-1), torch.ones(64).double())
