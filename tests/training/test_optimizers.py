"""Parameter groups, Muon, and learning-rate schedules."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from arlm.adapters import LoRA
from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.bert import BERT
from arlm.models.bilstm import BiLSTM
from arlm.models.transformer import TransformerLanguageModel
from arlm.training.learning_rates import LearningRates, layer_depths
from arlm.training.optimizers import Muon, build_optimizer, parameter_groups
from arlm.training.schedules import HoldThenDecay, WarmupCosine

SPEC = Spec(11, (9,))
TOKENS = torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(0))


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


def transformers(count: int) -> list[TransformerLanguageModel]:
    """Networks with equal weights."""
    torch.manual_seed(0)
    nets = [TransformerLanguageModel(SPEC, width=8, heads=2, depth=1) for _ in range(count)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    return nets


def train(net: TransformerLanguageModel, optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (-net.log_prob(TOKENS).mean()).backward()
        optimizer.step()


def equal(one: nn.Module, other: nn.Module) -> list[str]:
    """The names of the parameters that are equal, bit for bit."""
    pairs = zip(one.named_parameters(), other.parameters(), strict=True)
    return [name for (name, p), q in pairs if torch.equal(p, q)]


def test_muon_turns_matrices_and_leaves_the_rest_to_adamw() -> None:
    net, twin = transformers(2)
    muon = Muon(parameter_groups(net), lr=0.1, adam_lr=0.01, weight_decay=0.0)
    rest = [group for group in parameter_groups(twin) if group["kind"] != "matrix"]
    matrices = [group for group in parameter_groups(twin) if group["kind"] == "matrix"]
    given = {"lr": 0.1, "momentum": 0.95, "weight_decay": 0.0}
    optimizers = [
        torch.optim.AdamW(rest, 0.01, (0.9, 0.95), weight_decay=0.0, fused=True),
        torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **given),
    ]
    before = net.blocks[0].mlp.out.weight.detach().clone()
    for step in range(3):
        train(net, muon)
        (-twin.log_prob(TOKENS).mean()).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step == 0:
            moved = net.blocks[0].mlp.out.weight.detach() - before
    assert equal(net, twin) == [name for name, _ in net.named_parameters()]
    values = torch.linalg.svdvals(moved) / (0.1 * 0.2 * 32**0.5)
    assert 0.4 < values.min() < values.max() < 1.3


def test_muon_resumes_exactly() -> None:
    net, twin = transformers(2)
    muon, other = (Muon(parameter_groups(n), lr=rate) for n, rate in ((net, 0.05), (twin, 0.5)))
    train(net, muon, 3)
    twin.load_state_dict(net.state_dict())
    other.load_state_dict(copy.deepcopy(muon.state_dict()))  # the learning rate is in it
    assert other.state
    for part in other.parts:
        assert part.state is other.state
    for one, optimizer in ((net, muon), (twin, other)):
        train(one, optimizer, 3)
    assert len(equal(net, twin)) == len(list(net.parameters()))
    copied = copy.deepcopy(muon)
    assert [len(part.param_groups) for part in copied.parts] == [1, 3]


def test_schedules_and_later_groups_reach_both_parts_of_muon() -> None:
    (net,) = transformers(1)
    groups = parameter_groups(net)
    muon = Muon(groups[:-1])
    muon.add_param_group(groups[-1] | {"lr": 0.5})
    schedule = torch.optim.lr_scheduler.LambdaLR(muon, lambda step: 0.0)
    before = [p.detach().clone() for p in net.parameters()]
    train(net, muon)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    schedule.lr_lambdas = [lambda step: 1.0] * len(groups)
    schedule.step()
    assert [group["lr"] for group in muon.param_groups] == [0.02, 0.005, 0.005, 0.5]
    train(net, muon)
    moved = [not torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True)]
    assert all(moved)


def test_muon_evaluates_the_closure_with_gradients() -> None:
    (net,) = transformers(1)
    muon = Muon([group for group in parameter_groups(net) if group["kind"] == "matrix"])

    def closure() -> torch.Tensor:
        loss = -net.log_prob(TOKENS).mean()
        loss.backward()
        return loss

    with torch.no_grad():
        assert muon.step(closure) > muon.step(closure)
    with pytest.raises(UserError, match="momentum: 1"):
        Muon([], momentum=1.0)


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


def test_warmup_then_cosine() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupCosine(optimizer, total_steps=110, warmup=10, final=0.1)
    rates = []
    for _ in range(111):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(2 / 11)
    assert max(rates) == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.1)
    assert rates[110] == pytest.approx(0.2)
    with pytest.raises(UserError, match="final: 2"):
        WarmupCosine(optimizer, 10, final=2)


def test_factors_of_learning_rates_by_pattern_depth_and_network() -> None:
    net = TransformerLanguageModel(SPEC, width=8, heads=2, depth=2)
    rates = LearningRates({"blocks.*": 0.5, "blocks.1.*": 0.25, "embed*": 0}, 0.5)
    rates.freeze(net)
    assert not net.embed.weight.requires_grad
    assert net.start_vector.requires_grad
    optimizer = build_optimizer(
        partial(torch.optim.SGD, lr=8.0), parameter_groups(net, rates=rates)
    )
    found = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(net.named_parameters())
    expected = {
        "start_vector": 1.0,  # below two blocks and the head: 8 / 2^3
        "blocks.0.mlp.out.weight": 1.0,  # 8 / 2^2 / 2
        "blocks.1.mlp.out.bias": 1.0,  # 8 / 2 / 4
        "last_norm.weight": 8.0,
        "head.weight": 8.0,
    }
    assert {name: found[named[name]] for name in expected} == expected
    assert named["embed.weight"] not in found
    schedule = WarmupCosine(optimizer, 10, warmup=1)
    for _ in range(4):
        ratio = {group["lr"] / group["initial_lr"] for group in optimizer.param_groups}
        assert max(ratio) - min(ratio) < 1e-12  # the schedule multiplies all
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_comes_before_its_layers_is_the_top(tied: bool) -> None:
    spec = replace(
        SPEC, context=replace(SPEC, vocab_size=SPEC.vocab_size + 2, pad_id=SPEC.vocab_size + 1)
    )
    bert = layer_depths(BERT(spec, width=8, heads=2, depth=2, tied=tied))
    lstm = layer_depths(BiLSTM(spec, width=8, depth=2, tied=tied))
    for depths in (bert, lstm):
        head = {"bias", "weight"} & depths.keys()
        assert {depths[name] for name in head} == {3}
        assert {d for name, d in depths.items() if name.startswith("transform.")} == {3}
        assert depths["embed_source.weight"] == 0
    assert bert["distance_bias"] == 0
    assert {d for name, d in bert.items() if name.startswith("encoder.1.")} == {2}
    assert bert["encoder_norm.weight"] == 3
    assert {d for name, d in lstm.items() if "_l0" in name} == {1}
    assert {d for name, d in lstm.items() if "_l1" in name} == {2}


def test_lora_plus_is_a_factor_of_b() -> None:
    make = partial(TransformerLanguageModel, width=8, heads=2, depth=1)
    net = LoRA(SPEC, make, rank=2, lr_ratio=16.0)
    groups = parameter_groups(net)
    assert [(g.get("lr_factor", 1.0), g["kind"], len(g["params"])) for g in groups] == [
        (16.0, "matrix", 4),
        (1.0, "matrix", 4),
    ]
    assert all(p.shape[1] == 2 for p in groups[0]["params"])
    optimizer = build_optimizer(partial(Muon, lr=0.5), groups)
    assert [group["lr"] for group in optimizer.parts[0].param_groups] == [8.0, 0.5]


@pytest.mark.parametrize(
    ("rates", "decay", "message"),
    [
        (
            {"nothing*": 0.5},
            1.0,
            r"model.learning_rates: 'nothing\*' matches no parameter of Transf",
        ),
        ({"embed*": -1}, 1.0, r"model.learning_rates.embed\*: -1 is out of range; choose 0, which"),
        ({"*": 0}, 1.0, r"model.learning_rates: {'\*': 0} freezes every parameter"),
        (None, 0.0, r"model.layer_decay: 0.0 is out of range; choose above 0"),
    ],
)
def test_wrong_learning_rates_are_one_line(rates: dict, decay: float, message: str) -> None:
    net = transformers(1)[0]
    with pytest.raises(UserError, match=message):
        LearningRates(rates, decay).freeze(net)
