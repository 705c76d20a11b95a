"""Layers: attention masks, the fused LSTM and the padded head are what their papers or torch say."""

from __future__ import annotations

import pytest
import torch

from arlm.layers.attention import causal_mask
from arlm.layers.fused_lstm import lstm
from arlm.layers.head import logits_of
from arlm.layers.positional_encoding import alibi_slopes


def test_alibi_and_bands() -> None:
    assert torch.allclose(alibi_slopes(8), torch.tensor([2.0**-i for i in range(1, 9)]))
    assert torch.allclose(alibi_slopes(6)[4:], torch.tensor([2.0**-1, 2.0**-3]))
    at = torch.arange(4)
    bias = causal_mask(at, at, torch.tensor([0.5]), sliding_window=2)[0]
    inf = float("inf")
    rows = [
        [0, -inf, -inf, -inf],
        [-0.5, 0, -inf, -inf],
        [-inf, -0.5, 0, -inf],
        [-inf, -inf, -0.5, 0],
    ]
    assert torch.equal(bias, torch.tensor(rows))


def test_the_layer_for_wide_lstms_is_torchs() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(3, 5, batch_first=True, dtype=torch.float64)
    weights = [parameter.detach().clone() for parameter in theirs._parameters.values()]
    x, hidden, cell = (torch.randn(*shape).double() for shape in ((2, 4, 3), (2, 5), (2, 5)))
    outputs, (last, memory) = theirs(x, (hidden[None], cell[None]))
    found = lstm(x, hidden, cell, weights, torch.float64)
    for actual, expected in zip(found, (outputs, last[0], memory[0]), strict=True):
        assert torch.allclose(actual, expected, atol=1e-12)
    everything = [part.requires_grad_() for part in (x, hidden, cell, *weights)]
    assert torch.autograd.gradcheck(
        lambda x, h, c, *w: lstm(x, h, c, w, torch.float64), tuple(everything)
    )


@pytest.mark.parametrize("size", [1000, 1024, 1025, 1039])
def test_a_rounded_up_head_scores_alike(size: int) -> None:
    torch.manual_seed(0)
    for bias in (True, False):
        head, x = torch.nn.Linear(8, size, bias=bias), torch.randn(3, 5, 8)
        with torch.no_grad():
            ours = logits_of(head, x)
        assert ours.shape == (3, 5, size)
        assert torch.allclose(ours, head(x), atol=1e-6)
