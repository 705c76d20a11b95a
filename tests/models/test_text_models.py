"""Options of the text networks do what their papers say, in training only; optimizers and schedules."""

from __future__ import annotations

import pytest
import torch

from arlm.core import Spec
from arlm.errors import UserError
from arlm.layers.fused_lstm import lstm
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.rnn import GRULanguageModel, LSTMLanguageModel, RNNLanguageModel
from arlm.models.transformer import TransformerLanguageModel

SPEC = Spec(11, (9,))
TOKENS = torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(0))
KINDS = [RNNLanguageModel, GRULanguageModel, LSTMLanguageModel]
AWD = {
    "dropout": 0.4,
    "hidden_dropout": 0.3,
    "input_dropout": 0.2,
    "embedding_dropout": 0.1,
    "weight_drop": 0.5,
    "variational": True,
    "activation_penalty": 2.0,
    "slowness_penalty": 1.0,
}


@pytest.mark.parametrize("kind", KINDS)
def test_regularisers_act_in_training_only(kind) -> None:
    torch.manual_seed(0)
    net = kind(SPEC, width=8, embedding=6, depth=3, tied=True, **AWD)
    plain = kind(SPEC, width=8, embedding=6, depth=3, tied=True)
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net.eval().log_prob(TOKENS), plain.eval().log_prob(TOKENS))
    net.train()
    assert not torch.equal(net.log_prob(TOKENS), net.log_prob(TOKENS))
    net.log_prob(TOKENS).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_weight_drop_runs_the_same_cell(kind, monkeypatch) -> None:
    net = kind(SPEC, width=8, depth=2, weight_drop=0.5).double()
    monkeypatch.setattr("arlm.models.rnn.F.dropout", lambda x, *_: x)  # nothing is dropped
    dropping = net.train().log_prob(TOKENS)
    assert (dropping - net.eval().log_prob(TOKENS)).abs().max() < 1e-12
    state = net.start(3, 9)[1]
    monkeypatch.setattr("arlm.models.rnn.F.dropout", lambda x, *_: 0 * x if x.shape[-1] == 8 else x)
    net.input_dropout = net.hidden_dropout = 0.0
    before = net.layers[0].weight_hh_l0.clone()
    net.train().advance(TOKENS, state)
    assert torch.equal(net.layers[0].weight_hh_l0, before), "dropped weights must come back"


def test_weight_drop_zeroes_the_recurrence() -> None:
    net = RNNLanguageModel(SPEC, width=8, depth=1, weight_drop=0.999999).train()
    logits = net(TOKENS)
    other = TOKENS.clone()
    other[:, 0] = (other[:, 0] + 1) % 11
    moved = (net(other) - logits).abs().amax((0, 2)) > 1e-6
    assert moved.tolist() == [False, True] + [False] * 7  # nothing is remembered


def test_variational_dropout_has_one_mask_for_all_tokens() -> None:
    net = LSTMLanguageModel(SPEC, width=64, dropout=0.5, variational=True).train()
    dropped = net._drop(torch.ones(2, 7, 64), None)
    assert torch.equal(dropped, dropped[:, :1].expand(-1, 7, -1))
    assert not torch.equal(dropped[0], dropped[1])
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    net.variational = False
    dropped = net._drop(torch.ones(2, 7, 64), None)
    assert not torch.equal(dropped, dropped[:, :1].expand(-1, 7, -1))


def test_embedding_dropout_leaves_out_whole_words() -> None:
    net = LSTMLanguageModel(SPEC, width=16, embedding_dropout=0.5).train()
    kept = net._embed(TOKENS) / net.embed(TOKENS)
    by_token = {}
    for token, row in zip(TOKENS.flatten().tolist(), kept.flatten(0, 1), strict=True):
        assert torch.allclose(row, row[:1].expand(16))
        assert by_token.setdefault(token, float(row[0].round())) == float(row[0].round())
    assert set(by_token.values()) == {0.0, 2.0}


def test_penalties_are_returned_beside_the_likelihood() -> None:
    torch.manual_seed(1)
    net = LSTMLanguageModel(
        SPEC, width=6, depth=1, activation_penalty=2, slowness_penalty=3
    ).double()
    plain = LSTMLanguageModel(SPEC, width=6, depth=1).double()
    plain.load_state_dict(net.state_dict())
    scores = net.score(TOKENS)
    assert torch.equal(scores.log_prob, plain.log_prob(TOKENS))
    assert torch.equal(net.log_prob(TOKENS), plain.log_prob(TOKENS))
    (-scores.log_prob.mean() + scores.auxiliary.mean()).backward()
    raw, dropped, _ = plain._read(plain._inputs(TOKENS), None)
    awd = -plain.log_prob(TOKENS).mean() + 2 * dropped.square().mean()
    # the paper's mean is over differences; ours over tokens, the first of which has none
    awd = awd + 3 * raw.diff(dim=1).square().mean() * 8 / 9
    awd.backward()
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad)
    chunk = net.score_chunk(TOKENS[:, :4])[0]
    assert torch.allclose(chunk.log_prob, plain.log_prob(TOKENS)[:, :4])
    assert chunk.auxiliary.shape == (3, 4)
    assert net.eval().score(TOKENS).auxiliary is None, "penalties are for training"


def test_tied_weights_are_counted_once() -> None:
    net = LSTMLanguageModel(SPEC, width=8, embedding=6, tied=True)
    assert net.head.weight is net.embed.weight
    assert net.layers[-1].hidden_size == 6


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (LSTMLanguageModel, {"weight_drop": 1.0}, "model.net.weight_drop: 1.0"),
        (LSTMLanguageModel, {"input_dropout": -0.1}, "model.net.input_dropout"),
        (NeuralNGram, {"order": 1}, "model.net.order: 1"),
        (TransformerLanguageModel, {"heads": 4, "kv_heads": 3}, "3 does not divide 4 heads"),
        (TransformerLanguageModel, {"start_token": 11}, "model.net.start_token: 11 .* 0 to 10"),
        (TransformerLanguageModel, {"sliding_window": 0}, "model.net.sliding_window: 0"),
    ],
)
def test_bad_options_are_refused(kind, arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        kind(SPEC, **arguments)


def test_a_banded_block_sees_its_band_only() -> None:
    torch.manual_seed(0)
    net = (
        TransformerLanguageModel(SPEC, width=8, depth=2, heads=2, sliding_window=3).double().eval()
    )
    net.blocks[0].attention.out.weight.data.zero_()  # the dense block attends to nothing
    other = TOKENS.clone()
    other[:, 1] = (other[:, 1] + 1) % 11
    moved = (net(other) != net(TOKENS)).any(-1).any(0)
    assert moved.tolist() == [False, False, True, True, True, False, False, False, False]


def test_alibi_reads_rows_longer_than_those_of_training() -> None:
    net = TransformerLanguageModel(SPEC, width=8, heads=2, positions="alibi")
    assert net.max_length is None
    assert net(TOKENS.repeat(1, 3)).shape == (3, 27, 11)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_rows_beyond_a_table_of_positions_are_refused(positions: str) -> None:
    net = TransformerLanguageModel(SPEC, width=8, heads=2, positions=positions)
    assert net(TOKENS).shape == (3, 9, 11)
    with pytest.raises(UserError, match=r"tokens: rows of 18 do not fit .* at most 9"):
        net(TOKENS.repeat(1, 2))


@pytest.mark.parametrize("weight_drop", [0.0, 0.5])
def test_wide_lstms_train_alike_by_either_layer(
    weight_drop: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(*arguments):
        calls.append(1)
        return lstm(*arguments)

    monkeypatch.setattr("arlm.models.rnn.lstm", counted)
    torch.manual_seed(0)
    net = LSTMLanguageModel(Spec(11, (6,)), width=32, depth=2, weight_drop=weight_drop)
    tokens = torch.randint(11, (4, 6))
    found = {}
    for wide in (10**9, 32):
        monkeypatch.setattr("arlm.layers.fused_lstm.WIDE", wide)
        torch.manual_seed(1)
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            first, after = net.score_chunk(tokens)
            second, _ = net.score_chunk(tokens, after)
        (-first.log_prob - second.log_prob).mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in net.parameters()])
        found[wide] = torch.cat([first.log_prob, second.log_prob]).detach(), gradient
    assert len(calls) == 4
    assert torch.allclose(found[32][0], found[10**9][0], atol=0.02)
    difference = found[32][1] - found[10**9][1]
    assert float(difference.norm() / found[10**9][1].norm()) < 0.02
    assert not torch.equal(found[32][1], found[10**9][1])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        net.log_prob(tokens)
    assert len(calls) == 4, "without gradients, torch's layer is faster"
