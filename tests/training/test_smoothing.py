"""Smoothed labels change the gradient and no figure."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from arlm.core import Batch, Spec, token_log_prob
from arlm.errors import UserError
from arlm.inference.scorer import BatchScorer
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.rnn import LSTMLanguageModel
from arlm.training.objectives.smoothing import smoothed_log_prob, smoothed_score


def test_smoothing_is_in_the_gradient_and_not_in_the_value() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 5, 7, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(7, (4, 5))
    weights = torch.rand(4, 5, dtype=torch.float64)
    value = smoothed_log_prob(logits, tokens, 0.1)
    assert torch.allclose(value, token_log_prob(logits, tokens))
    (ours,) = torch.autograd.grad((value * weights).sum(), logits)
    smoothed = F.cross_entropy(
        logits.flatten(0, 1), tokens.flatten(), reduction="none", label_smoothing=0.1
    )
    (theirs,) = torch.autograd.grad(-(smoothed * weights.flatten()).sum(), logits)
    assert torch.allclose(ours, theirs)


def test_smoothing_is_refused_where_it_would_be_ignored() -> None:
    with pytest.raises(UserError, match=r"model.objective.label_smoothing: LSTMLanguageModel"):
        smoothed_score(LSTMLanguageModel(Spec(5, (4,)), width=4), 0.1)
    with pytest.raises(UserError, match=r"model.objective.label_smoothing: 1.0"):
        smoothed_score(LSTMLanguageModel(Spec(5, (4,)), width=4), 1.0)


def test_smoothing_is_refused_for_continuous_streams() -> None:
    net = NeuralNGram(Spec(5, (4,)), order=3, embedding=4, width=6)
    scorer = BatchScorer(net, score=smoothed_score(net, 0.1))
    tokens, starts = torch.zeros(2, 4, dtype=torch.long), torch.ones(2, dtype=torch.bool)
    rows = Batch(tokens, tokens >= 0, torch.ones(2, 4))
    assert scorer(rows).log_prob.shape == (2, 4)
    with pytest.raises(
        UserError, match=r"model.objective.label_smoothing: it needs independent rows"
    ):
        scorer(rows._replace(starts_document=starts))
