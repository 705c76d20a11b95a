"""Figures of classifiers and of values, against other implementations and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from arlm.evaluation.classification import (
    classification_figures,
    mcnemar,
    mean_ranks,
    regression_figures,
)


def drawn(classes: int, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=random)
    wrong = torch.rand(count, generator=random) < 0.4
    return torch.where(wrong, torch.randint(classes, (count,), generator=random), labels), labels


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_figures_are_those_of_scikit_learn(classes: int) -> None:
    predicted, labels = drawn(classes, 300)
    found = classification_figures(predicted, labels, classes)
    assert found["accuracy"].mean == float((predicted == labels).double().mean())
    assert found["f1"].mean == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found["matthews"].mean == pytest.approx(matthews_corrcoef(labels, predicted))
    for interval in found.values():
        assert interval.low < interval.mean < interval.high


def test_a_majority_classifier_has_no_correlation() -> None:
    labels = torch.tensor([0, 1, 1, 1])
    found = classification_figures(torch.ones(4, dtype=torch.long), labels, 2)
    assert found["matthews"].mean == 0
    assert np.isnan(found["matthews"][1:]).all()  # no draw has a correlation
    assert found["accuracy"].mean == 0.75
    assert found["f1"].mean == pytest.approx((0 + 6 / 7) / 2)


def test_a_rare_class_that_a_draw_misses_makes_no_interval_wider() -> None:
    labels = torch.tensor([0] * 99 + [1])
    found = classification_figures(labels, labels, 2)
    assert found["f1"] == found["matthews"] == (1.0, 1.0, 1.0)


def test_f1_counts_the_classes_that_scikit_learn_counts() -> None:
    predicted, labels = drawn(3, 50)
    expected = f1_score(labels, predicted, average="macro")
    assert classification_figures(predicted, labels, 5)["f1"].mean == pytest.approx(expected)


def test_bootstrap_intervals_cover_as_often_as_they_say() -> None:
    truth, inside = 0.6 * 1 + 0.4 / 3, 0  # share of right answers of `drawn` with 3 classes
    for seed in range(200):
        predicted, labels = drawn(3, 200, seed)
        interval = classification_figures(predicted, labels, 3)["accuracy"]
        inside += interval.low <= truth <= interval.high
    assert 180 <= inside <= 199


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (3, 9), (60, 41), (500, 420)])
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    first = torch.tensor([True] * b + [False] * c + [True, False])
    second = torch.tensor([False] * b + [True] * c + [True, False])
    expected = binomtest(b, b + c).pvalue if b + c else 1.0
    found = mcnemar(first, second)
    assert found[:2] == (b, c)
    assert found.p == pytest.approx(expected, rel=1e-9)
    assert mcnemar(second, first).p == found.p


def test_figures_of_values() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=80).round(1)  # with ties
    predicted = values + random.normal(size=80).round(1)
    found = regression_figures(torch.from_numpy(predicted), torch.from_numpy(values))
    assert found["mean_absolute_error"].mean == pytest.approx(np.abs(predicted - values).mean())
    assert found["pearson"].mean == pytest.approx(pearsonr(predicted, values)[0])
    assert found["spearman"].mean == pytest.approx(spearmanr(predicted, values)[0])
    assert all(i.low < i.mean < i.high for i in found.values())
    assert mean_ranks(np.array([3.0, 1.0, 3.0])).tolist() == [2.5, 1.0, 2.5]
    constant = regression_figures(torch.ones(9), torch.arange(9.0))
    assert constant["pearson"].mean == 0
