"""Contrastive decoding and proxy-tuning: their formulae on log-softmax, the mask of the expert, identities."""

from __future__ import annotations

import copy
import math

import adapter_laws
import laws
import pytest
import torch
from adapter_laws import PARTS, TEXT, kept
from torch import Tensor

from arlm.adapters import LogitArithmetic, contrastive, guided, proxy_tuned
from arlm.checkpoints import build, describe
from arlm.core import Autoregressor, Spec, log_softmax
from arlm.errors import UserError
from arlm.models.rnn import LSTMLanguageModel
from arlm.sampling import generate
from arlm.sampling.processors import parse_processors

WIDE = Spec(11, (6,))


def networks(spec: Spec = WIDE) -> list[Autoregressor]:
    return [laws.lively(make(spec)).eval() for make in PARTS]


def stepwise(net: Autoregressor, tokens: Tensor, context: Tensor | None = None) -> Tensor:
    """Logits (B, T, V), token by token."""
    with torch.no_grad():
        logits, state = net.start(len(tokens), tokens.shape[1], context)
        found = [logits]
        for t in range(tokens.shape[1] - 1):
            logits, state = net.advance(tokens[:, t : t + 1], state)
            found.append(logits[:, 0])
    return torch.stack(found, 1)


def test_contrastive_decoding_is_its_formula() -> None:
    expert, amateur, _ = networks()
    tokens = laws.rows(expert)
    p, q = log_softmax(expert(tokens)), log_softmax(amateur(tokens))
    for strength, plausibility in ((0.5, 0.6), (2.0, 0.8), (0.0, 0.7), (1.0, 0.0), (1.0, 1.0)):
        both = contrastive(expert, amateur, strength, plausibility)
        dropped = p.exp() < plausibility * p.exp().amax(-1, keepdim=True)
        expected = ((1 + strength) * p - strength * q).masked_fill(dropped, -math.inf)
        for found in (both(tokens), stepwise(both, tokens)):
            assert torch.equal(found == -math.inf, dropped)
            difference = log_softmax(found) - log_softmax(expected)
            assert difference[~dropped].abs().max() < 1e-10
        if plausibility == 1:
            assert (dropped.sum(-1) == 10).all()
        elif plausibility:
            assert dropped.any()


def test_plausibility_of_a_network_alone_is_min_p() -> None:
    net = networks()[0]
    alone = LogitArithmetic(WIDE, [kept(net)], [1.0], plausibility=0.7).double()
    expected = generate(net, range(20), processors=parse_processors("min_p=0.7"))
    assert torch.equal(generate(alone, range(20)).tokens, expected.tokens)
    assert not torch.equal(generate(net, range(20)).tokens, expected.tokens)


def test_the_expert_may_be_any_term_and_any_context() -> None:
    net = adapter_laws.pixels()
    tokens, context = laws.rows(net), torch.arange(6)[:, None] % 3
    for expert, labels in ((0, context), (1, torch.full_like(context, 3))):
        given = {"contexts": ["given", "null"], "indices": [0, 0], "expert": expert}
        both = LogitArithmetic(net.spec, [kept(net)], [0.75, 0.25], plausibility=0.5, **given)
        p = log_softmax(net(tokens, labels)).exp()
        dropped = p < 0.5 * p.amax(-1, keepdim=True)
        for found in (both(tokens, context), stepwise(both, tokens, context)):
            assert torch.equal(found == -math.inf, dropped)
    # A run whose weights cancel is still the expert's.
    terms = [kept(net), kept(net)]
    both = LogitArithmetic(net.spec, terms, [1.0, -1.0, 1.0], indices=[0, 0, 1], plausibility=0.5)
    p = log_softmax(net(tokens, context)).exp()
    assert torch.equal(both(tokens, context) == -math.inf, p < 0.5 * p.amax(-1, keepdim=True))


def test_proxy_tuning_is_its_formula_and_nothing_if_nothing_was_tuned() -> None:
    net, tuned, untuned = networks()
    tokens = laws.rows(net)
    for scale in (1.0, 0.3, -2.0):
        three = proxy_tuned(net, tuned, untuned, scale)
        difference = log_softmax(tuned(tokens)) - log_softmax(untuned(tokens))
        expected = log_softmax(log_softmax(net(tokens)) + scale * difference)
        for found in (three(tokens), stepwise(three, tokens)):
            assert (log_softmax(found) - expected).abs().max() < 1e-10
        same = proxy_tuned(net, tuned, copy.deepcopy(tuned), scale)
        assert torch.equal(same(tokens), log_softmax(net(tokens)))
    once = LogitArithmetic(
        WIDE, [kept(net), kept(tuned)], [1.0, 0.7, -0.7], indices=[0, 1, 1]
    ).double()
    assert torch.equal(once(tokens), net(tokens))  # the network that cancels is not run


def test_terms_that_all_cancel_leave_the_uniform_distribution() -> None:
    net = adapter_laws.pixels()
    tokens = laws.rows(net)
    difference = log_softmax(guided(net, 2.0)(tokens)) - log_softmax(net(tokens))
    assert difference.abs().max() < 1e-10
    both = LogitArithmetic(
        net.spec, [kept(net)], [1.0, -1.0], contexts=["given", "null"], indices=[0, 0]
    )
    assert (both(tokens) == 0).all()


def test_a_checkpoint_describes_the_mask() -> None:
    parts = list(PARTS[:2])
    both = LogitArithmetic(TEXT, parts, [1.5, -0.5], plausibility=0.3, expert=0)
    again = build(describe(both, "spec"), Autoregressor, TEXT)
    assert (again.plausibility, again.expert) == (0.3, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plausibility": -0.1}, "model.net.plausibility: -0.1 is out of range; choose 0 to 1"),
        ({"plausibility": 1.5}, "model.net.plausibility: 1.5 is out of range; choose 0 to 1"),
        ({"plausibility": math.nan}, "model.net.plausibility: nan is out of range"),
        ({"plausibility": 0.1, "expert": 1}, "model.net.expert: 1 is out of range; choose a term of "),
        ({"plausibility": 0.1, "expert": 2}, "model.net.expert: 2 is out of range; choose a term of "),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=r"^model\.net") as caught:
        LogitArithmetic(TEXT, list(PARTS[:2]), [1.5, -0.5], **arguments)
    assert message in str(caught.value)


def test_bad_constructions() -> None:
    net, other, _ = networks()
    with pytest.raises(UserError, match=r"^strength: -1 is out of range"):
        contrastive(net, other, -1)
    with pytest.raises(UserError, match=r"^scale: nan is out of range"):
        proxy_tuned(net, other, other, math.nan)
    foreign = LSTMLanguageModel(Spec(11, (6,), fingerprint="b" * 16), width=4)
    with pytest.raises(UserError, match=r"'nets\[1\]' was trained with other tokens"):
        contrastive(net, foreign)
