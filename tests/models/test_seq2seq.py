"""Sequence-to-sequence networks: one step alone or with all others, and sources that do not fit."""

from __future__ import annotations

import pytest
import torch

from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.transformer_seq2seq import TransformerSeq2Seq

PAIRS = Spec(6, (8,), eos_id=5, context=Spec(9, (7,), pad_id=8))


@pytest.mark.parametrize("kind", ["additive", "dot", "general"])
def test_feeding_and_parallel_forms_read_alike(kind: str) -> None:
    """One step of the decoder is the same function whether it runs alone or with all others."""
    torch.manual_seed(0)
    net = LSTMSeq2Seq(PAIRS, kind, width=6, embedding=4, depth=2).eval()
    tokens, context = torch.randint(6, (3, 8)), torch.randint(8, (3, 7))
    with torch.no_grad():
        whole = net(tokens, context)
        _, state = net.start(3, 8, context)
        stepped = torch.cat([net.advance(t, state)[0] for t in tokens[:, :1].split(1, 1)], 1)
    assert torch.allclose(stepped[:, 0], whole[:, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention": "none", "feeding": True}, "model.net.feeding: true"),
        ({"attention": "dot", "width": 6, "encoder_width": 5}, "model.net.encoder_width"),
        ({"shared": True}, "model.net.shared: source and target have a tokenizer each"),
        ({"width": 0}, "model.net.width: 0"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LSTMSeq2Seq(PAIRS, **arguments)


def test_data_without_sources_is_refused() -> None:
    for kind in (LSTMSeq2Seq, TransformerSeq2Seq):
        with pytest.raises(UserError, match="no source sentences"):
            kind(Spec(5, (4,)))
    net = LSTMSeq2Seq(PAIRS, width=4, embedding=4)
    with pytest.raises(UserError, match="a source sentence is empty"):
        net(torch.zeros(1, 8, dtype=torch.long), torch.full((1, 7), 8))


def test_a_source_that_is_too_long_is_refused() -> None:
    for kind in ({"positions": "sinusoidal"}, {"positions": "learned"}):
        net = TransformerSeq2Seq(PAIRS, width=8, heads=2, depth=1, **kind)
        with pytest.raises(UserError, match=r"context: a source of 9 tokens .* holds 8"):
            net(torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 9, dtype=torch.long))
        assert net(torch.zeros(1, 8).long(), torch.zeros(1, 8).long()).shape == (1, 8, 6)
