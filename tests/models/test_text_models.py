"""Options of the text networks do what their papers say, in training only; optimizers and schedules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from arlm.core import Spec
from arlm.errors import UserError
from arlm.layers.attention import causal_mask
from arlm.layers.fused_lstm import lstm
from arlm.layers.head import score
from arlm.layers.positional_encoding import alibi_slopes
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.rnn import GRULanguageModel, LSTMLanguageModel, RNNLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.training.optimizers import Muon, orthogonal, parameter_groups
from arlm.training.schedules import HoldThenDecay

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


def test_parameter_groups_decay_matrices_alone() -> None:
    net = TransformerLanguageModel(SPEC, width=8, heads=2, depth=1, positions="learned")
    groups = {group["kind"]: group for group in parameter_groups(net)}
    assert groups["embedding"]["params"] == [net.embed.weight]
    assert groups["head"]["params"] == [net.head.weight]
    assert {p.ndim for p in groups["vector"]["params"]} == {1}
    assert groups["embedding"]["weight_decay"] == groups["vector"]["weight_decay"] == 0
    assert "weight_decay" not in groups["matrix"]
    count = sum(len(group["params"]) for group in groups.values())
    assert count == len(list(net.parameters()))
    tied = TransformerLanguageModel(SPEC, width=8, heads=2, tied=True)
    assert "head" not in {group["kind"] for group in parameter_groups(tied)}


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices).float())
    assert 0.6 < values.min() < values.max() < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    alike = torch.nn.functional.cosine_similarity(
        orthogonal(matrices).float().flatten(1), (u @ v).flatten(1)
    )
    assert alike.min() > 0.97


def test_muon_turns_matrices_and_leaves_the_rest_to_adamw() -> None:
    torch.manual_seed(0)
    net = TransformerLanguageModel(SPEC, width=8, heads=2, depth=1)
    twin = TransformerLanguageModel(SPEC, width=8, heads=2, depth=1)
    twin.load_state_dict(net.state_dict())
    muon = Muon(parameter_groups(net), lr=0.1, adam_lr=0.01, weight_decay=0.0)
    adam = torch.optim.AdamW(
        parameter_groups(twin), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    before = net.blocks[0].mlp.out.weight.detach().clone()
    for one, optimizer in ((net, muon), (twin, adam)):
        (-one.log_prob(TOKENS).mean()).backward()
        optimizer.step()
    moved = net.blocks[0].mlp.out.weight - before
    values = torch.linalg.svdvals(moved) / (0.1 * 0.2 * 32**0.5)
    assert 0.4 < values.min() < values.max() < 1.3
    for name in ("embed.weight", "head.weight", "blocks.0.mlp.out.bias"):
        assert torch.equal(net.get_parameter(name), twin.get_parameter(name)), name
    saved = muon.state_dict()
    again = Muon(parameter_groups(net))
    again.load_state_dict(saved)
    assert again.param_groups[0]["lr"] == 0.1


def test_hold_then_decay() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = HoldThenDecay(optimizer, total_steps=50, epochs=5, hold=2, factor=0.5)
    rates = []
    for _ in range(50):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[::10] == [1, 1, 0.5, 0.25, 0.125]
    assert rates[19] == 1
    with pytest.raises(UserError, match=r"model.scheduler.hold: 6"):
        HoldThenDecay(optimizer, 50, epochs=5, hold=6, factor=0.5)


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


@pytest.mark.parametrize("size", [1000, 1024, 1025, 1039])
def test_a_rounded_up_head_scores_alike(size: int) -> None:
    torch.manual_seed(0)
    for bias in (True, False):
        head, x = torch.nn.Linear(8, size, bias=bias), torch.randn(3, 5, 8)
        with torch.no_grad():
            ours = score(head, x)
        assert ours.shape == (3, 5, size)
        assert torch.allclose(ours, head(x), atol=1e-6)
