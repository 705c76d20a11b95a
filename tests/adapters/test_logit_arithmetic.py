"""LogitArithmetic obeys the laws of networks made of networks, and the laws catch wrong ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import adapter_laws
import pytest
import torch
from adapter_laws import DIGIT, GUIDANCE, PARTS, TEXT, kept

from arlm.adapters import LogitArithmetic, guided
from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.rnn import LSTMLanguageModel


def build(kind: type[LogitArithmetic]) -> Callable:
    return lambda *arguments, **named: kind(*arguments, **named).double().eval()


@pytest.mark.parametrize("law", adapter_laws.LAWS, ids=lambda law: law.__name__)
def test_logit_arithmetic_obeys(law: Callable) -> None:
    law(build(LogitArithmetic))


class SwappedWeights(LogitArithmetic):
    """The weights in the order of the last to the first."""

    def __init__(self, spec, nets, weights, *more, **named):
        super().__init__(spec, nets, weights[::-1], *more, **named)


class RawLogits(LogitArithmetic):
    """The weighted sum of logits as they are."""

    def _sum(self, logits, weights):
        return sum(w * each for w, each in zip(weights, logits, strict=True))


class SwappedContexts(LogitArithmetic):
    """What is to be given a class gets none, and the other way round."""

    def __init__(self, spec, nets, weights, contexts=None, indices=None):
        super().__init__(spec, nets, weights, contexts and contexts[::-1], indices)


class NormalisedTwice(LogitArithmetic):
    """A network alone is not left as it is."""

    def _sum(self, logits, weights):
        return super()._sum([*logits, logits[0]], [*weights, 0.0])


class NothingTimesInfinity(LogitArithmetic):
    """A term of weight 0 is multiplied like any other."""

    def _runs(self, given):
        return {(net, kind == "given" and given): weight for weight, net, kind in self.terms}

    def _sum(self, logits, weights):
        return sum(w * each.log_softmax(-1) for w, each in zip(weights, logits, strict=True))


class ImpossibleEverywhere(LogitArithmetic):
    """Probability 0 under a negative weight becomes +inf."""

    def _sum(self, logits, weights):
        return sum(w * each.log_softmax(-1) for w, each in zip(weights, logits, strict=True))


class SharedState(LogitArithmetic):
    """Two terms of one network advance one state."""

    def start(self, batch, length, context=None):
        logits, state = super().start(batch, length, context)
        return logits, dataclasses.replace(state, states=(state.states[0],) * len(state.states))

    def advance(self, tokens, state, lengths=None):
        states = tuple(part[:] for part in state.states)
        return super().advance(tokens, dataclasses.replace(state, states=states), lengths)


class RunsEveryTerm(LogitArithmetic):
    """Each term runs its network."""

    def forward(self, tokens, context=None):
        found = super().forward(tokens, context)
        for _, net, kind in self.terms:
            self.nets[net](tokens, context if kind == "given" else None)
        return found


MUTANTS = [
    (SwappedWeights, adapter_laws.law_weights),
    (SwappedWeights, adapter_laws.law_guidance),
    (RawLogits, adapter_laws.law_weights),
    (SwappedContexts, adapter_laws.law_guidance),
    (NormalisedTwice, adapter_laws.law_first_alone),
    (NothingTimesInfinity, adapter_laws.law_impossible_tokens),
    (ImpossibleEverywhere, adapter_laws.law_impossible_tokens),
    (SharedState, adapter_laws.law_guidance),
    (RunsEveryTerm, adapter_laws.law_runs_once),
]


@pytest.mark.parametrize(("mutant", "law"), MUTANTS, ids=lambda v: v.__name__)
def test_law_catches(mutant: type[LogitArithmetic], law: Callable) -> None:
    with pytest.raises(AssertionError):
        law(build(mutant))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0],), "1 weights for 2 nets or indices; give one"),
        (([1.0, 1.0], ["given"]), "2 weights for 1 contexts; give one"),
        (([1.0, 1.0], None, [0]), "2 weights for 1 nets or indices; give one"),
        (([1.0, 1.0], ["given", "all"]), "model.net.contexts: all is out of range; choose given, "),
        (([1.0, 1.0], ["given", "null"]), "the data has no null class; train with data.label_dro"),
        (([1.0, 1.0], None, [0, 2]), "model.net.indices: 2 is out of range; choose 0 to 1"),
        (([1.0, 1.0], None, [0, 0]), "model.net.indices: [1] is out of range; use each of nets"),
        (([1.0, math.inf],), "model.net.weights: [1.0, inf] is out of range; give finite numb"),
        (([0.0, -1.0],), "model.net.weights: [0.0, -1.0] is out of range; give finite numb"),
        (([1.0, 1.0, 1.0], ["given", "given", "none"], [0, 1, 1]), "both with and without a cont"),
    ],
)
def test_bad_arguments(arguments: tuple, message: str) -> None:
    with pytest.raises(UserError, match=r"^model\.net") as caught:
        LogitArithmetic(TEXT, [PARTS[0], PARTS[1]], *arguments)
    assert message in str(caught.value)


def test_networks_of_other_tokens_are_refused() -> None:
    ours, theirs = Spec(3, (6,), fingerprint="a" * 16), Spec(3, (6,), fingerprint="b" * 16)
    foreign = LSTMLanguageModel(theirs, width=4)
    with pytest.raises(UserError, match=r"'nets\[1\]' was trained with other tokens than those of"):
        LogitArithmetic(ours, [PARTS[0], kept(foreign)], [0.5, 0.5])
    longer = LSTMLanguageModel(Spec(3, (7,), fingerprint="a" * 16), width=4)
    with pytest.raises(
        UserError, match=r"nets\[1\]: it is for Spec.*\(7,\).*, not for Spec.*\(6,\)"
    ):
        LogitArithmetic(ours, [PARTS[0], kept(longer)], [0.5, 0.5])


def test_guidance_needs_a_null_class() -> None:
    for spec in (TEXT, Spec(5, (2, 3, 1), context=Spec(4, (1,), kind="label"))):
        net = adapter_laws.PixelCNN(spec, width=8, depth=1) if spec.context else PARTS[0](spec)
        with pytest.raises(UserError, match=r"^--guidance: 2.0 given, but the network has no null"):
            guided(net, 2.0)
    with pytest.raises(UserError, match=r"^--guidance: nan is out of range"):
        guided(adapter_laws.pixels(), math.nan)


def test_guidance_leaves_the_mode_of_the_network() -> None:
    net = adapter_laws.pixels()
    assert not any(module.training for module in guided(net.eval(), 2.0).modules())
    assert all(module.training for module in guided(net.train(), 2.0).modules())


def test_the_limits_of_the_networks_hold() -> None:
    assert LogitArithmetic(TEXT, [PARTS[0], PARTS[0]], [0.5, 0.5]).max_length is None
    short = adapter_laws.partial(
        adapter_laws.TransformerLanguageModel, width=8, positions="learned"
    )
    assert LogitArithmetic(TEXT, [PARTS[0], short], [0.5, 0.5]).max_length == 6
    assert guided(adapter_laws.pixels(), 2.0).max_length == torch.Size(DIGIT.shape).numel()
    assert GUIDANCE["indices"] == [0, 0]
