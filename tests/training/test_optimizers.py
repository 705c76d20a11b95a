"""Parameter groups, Muon, and learning-rate schedules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.transformer import TransformerLanguageModel
from arlm.training.optimizers import Muon, orthogonal, parameter_groups
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


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch.optim.Muon, of torch 2.9")
def test_muon_moves_matrices_as_that_of_torch() -> None:
    """Up to the rounding of bfloat16: torch computes each matrix by itself, this one all of a shape at once."""
    random = torch.Generator().manual_seed(0)
    shapes = [(8, 8), (8, 8), (24, 8), (8, 24)]
    starts = [torch.randn(shape, generator=random) for shape in shapes]
    goals = [torch.randn(shape, generator=random) for shape in shapes]
    ours, theirs = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    given = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}
    optimizers = [
        Muon([{"params": ours, "kind": "matrix"}], **given),
        torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw", **given),
    ]
    for _ in range(20):
        for weights, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            sum(((w - goal) ** 2).sum() for w, goal in zip(weights, goals, strict=True)).backward()
            optimizer.step()
    for start, one, other in zip(starts, ours, theirs, strict=True):
        moved = (other - start).norm()
        assert moved > 0.3
        assert (one - other).norm() < 0.02 * moved


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
