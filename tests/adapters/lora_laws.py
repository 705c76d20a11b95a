"""Laws of low-rank adapters, in float64; each takes a class `LoRA` and a base network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import laws
import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.core import Autoregressor
from arlm.errors import UserError
from arlm.sampling import generate


def bases() -> Iterator[laws.Case]:
    """Every network of arlm.models that has matrices, in each of its small forms, with the first data that fits."""
    seen = []
    for case in laws.cases():
        if case.kind.__name__ in laws.TEXTS:  # word vectors: embeddings only
            continue
        key = case.kind, str(case.arguments)
        counts = not any(True for _ in case.build().parameters())
        if case.kind.__module__.startswith("arlm.models.") and not counts and key not in seen:
            seen.append(key)
            yield case


def adapted(kind: Callable, base: Autoregressor, **options: object) -> Autoregressor:
    """An adapter on a base that exists, with lively factors."""
    net = kind(base.spec, lambda spec: base, rank=2, alpha=0.6, **options).to(
        next(base.parameters()).dtype
    )
    torch.manual_seed(1)
    for parameter in net.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    return net.eval()


def results(net: Autoregressor) -> dict[str, Tensor]:
    """What every way of running a network gives."""
    tokens, context = laws.rows(net, 4), laws.contexts(net, 4)
    length = net.spec.length
    with torch.no_grad():
        found = {
            "forward": net(tokens, context),
            "log_prob": net.log_prob(tokens, context),
            "score": net.score(tokens, context).log_prob,
        }
        if draws(net):
            first, state = net.start(4, length, context)
            some, state = net.advance(tokens[:, :1], state)
            rest, _ = net.advance(tokens[:, 1:-1], state[:])
            found["decoding"] = torch.cat([first[:, None], some, rest], 1)
            generated = generate(net, range(4), context=context)
            found |= {"drawn": generated.tokens, "drawn log_prob": generated.log_prob}
        if hasattr(net, "linear_map"):
            features = net.features(tokens, context)
            found["logits"] = net.logits(features)
            found["linear_map"] = F.linear(features, *net.linear_map())
        if hasattr(net, "score_chunk"):
            one, chunk = net.score_chunk(tokens[:, :2], None, context)
            two, _ = net.score_chunk(tokens[:, 2:], chunk)
            found["chunks"] = torch.cat([one.log_prob, two.log_prob], 1)
        if hasattr(net, "advance_features"):
            _, state = net.start(4, length, context)
            found["advance_features"] = net.logits(net.advance_features(tokens[:, :-1], state)[0])
        if (
            hasattr(net, "attention_weights")
            and (w := net.attention_weights(tokens, context)) is not None
        ):
            found["attention"] = w
    found["with gradients"] = net(tokens, context).detach()
    return found


def draws(net: Autoregressor) -> bool:
    """Whether rows of a network, or of the base of an adapter, are drawn token by token."""
    return type(getattr(net, "base", net)).__name__ not in laws.MASKED


def same(net: Autoregressor, other: Autoregressor, tolerance: float, what: str) -> None:
    one, two = results(net), results(other)
    assert one.keys() == two.keys(), f"{what}: {one.keys() ^ two.keys()} are offered by one only"
    for name, value in one.items():
        gap = float((value.double() - two[name].double()).abs().max())
        assert gap <= tolerance, f"{what}: {name} is off by {gap:.1e}"


def law_starts_as_base(kind: Callable, base: Autoregressor) -> None:
    """With B = 0, an adapter gives the base's numbers bit for bit."""
    net = kind(base.spec, lambda spec: base, rank=2).double().eval()
    trained = copy.deepcopy(base)
    for name in net.names:
        trained.get_parameter(name).requires_grad_(True)
    found, expected = results(net), results(base)
    # torch multiplies otherwise, with other rounding, where a weight gets a gradient.
    expected["with gradients"] = results(trained)["with gradients"]
    for name, value in found.items():
        assert torch.equal(value, expected[name]), f"{name} is not that of the base at the start"


def law_merged(kind: Callable, base: Autoregressor) -> None:
    """Merged equals unmerged, in place and as a network of its own, whatever method is called."""
    net, before = adapted(kind, base), results(base)
    tokens, context = laws.rows(net, 4), laws.contexts(net, 4)
    assert (net(tokens, context) - before["forward"]).abs().max() > 1e-3, "the adapter does nothing"
    plain = results(net)
    for name in ("forward", "decoding", "with gradients", "logits", "linear_map"):
        if name in plain and name != "forward":
            assert (plain[name] - plain["forward"]).abs().max() < 1e-10, (
                f"{name} bypasses the adapter"
            )
    same(net.merged(), net, 1e-12, "merged")
    net.merge()
    same(net, net.merged(), 1e-12, "merged in place")
    net.unmerge()
    again = results(net)
    assert all(torch.equal(plain[name], again[name]) for name in plain), "unmerging changes it"
    after = results(base)
    assert all(torch.equal(before[name], after[name]) for name in before), "the base has changed"


def law_frozen(kind: Callable, base: Autoregressor) -> None:
    """Steps of training move the factors and nothing else, and a merged network does not outlive them."""
    net = adapted(kind, base).merge()
    tokens, context = laws.rows(net, 4), laws.contexts(net, 4)
    with torch.no_grad():
        stale = net(tokens, context)
    before = copy.deepcopy(base.state_dict())
    net.train()
    optimizer = torch.optim.AdamW([*net.parameters()], lr=0.1, weight_decay=0.5)
    own = {name: p.detach().clone() for name, p in net.named_parameters() if p.requires_grad}
    for _ in range(2):
        net.score(tokens, context).log_prob.sum().backward()
        optimizer.step()
    for name, weight in base.state_dict().items():
        assert torch.equal(weight, before[name]), f"{name} of the base has moved"
    assert all(p.grad is None for p in base.parameters()), "the base gets a gradient"
    moved = dict(net.named_parameters())
    assert all(not torch.equal(moved[name], value) for name, value in own.items())
    with torch.no_grad():
        assert not torch.equal(net.eval()(tokens, context), stale), "merged tensors are stale"
    copy.deepcopy(net)  # nothing of the graph is left in the modules


def law_tied(kind: Callable, base: Autoregressor) -> None:
    """An adapter on one name of a tied weight leaves the other one as it is."""
    names = [name for name, p in base.named_parameters(remove_duplicate=False)]
    unique = {name for name, _ in base.named_parameters()}
    for second in set(names) - unique:
        weight = base.get_parameter(second)
        first = next(n for n in names if n != second and base.get_parameter(n) is weight)
        for target, other in ((first, second), (second, first)):
            net = adapted(kind, base, targets=[target])
            seen = {}
            module = base.get_submodule(other.rpartition(".")[0])
            hook = module.register_forward_hook(
                lambda m, *_, into=seen: into.update(weight=m.weight.detach().clone())
            )
            with torch.no_grad():
                net(laws.rows(net, 4), laws.contexts(net, 4))
            hook.remove()
            assert torch.equal(seen["weight"], weight), f"an adapter on {target} moves {other}"
            try:
                net.merged()
            except UserError:
                continue
            raise AssertionError(f"{target} is merged into {other}")


def law_state_dict(kind: Callable, base: Autoregressor) -> None:
    """The state dict is the base's and two factors for each weight; a network described anew takes it."""
    net = adapted(kind, base)
    own = [name for name in net.state_dict() if not name.startswith("base.")]
    assert set(net.state_dict()) - set(own) == {f"base.{n}" for n in base.state_dict()}
    assert len(own) == 2 * len(net.names)
    assert all(name.startswith("low_rank.") for name in own)
    again = laws.rebuilt(net).double().eval()
    again.load_state_dict(net.state_dict())
    same(again, net, 0.0, "loaded")


LAWS = [law_starts_as_base, law_merged, law_frozen, law_tied, law_state_dict]
