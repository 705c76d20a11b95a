"""LoRA over every network; its laws catch faults; bad options are one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import laws
import lora_laws
import pytest
import torch
from torch.func import functional_call

from arlm.adapters import Classifier, LoRA, Regressor
from arlm.adapters.adapted import AdaptedState
from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.bert import BERT
from arlm.models.bilstm import BiLSTM
from arlm.models.ngram import KneserNeyNGram
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel

BASES = list(lora_laws.bases())
FIRST = {case.kind: case for case in reversed(BASES)}  # other forms of a network are slow tests
FORMS = [
    pytest.param(case, marks=[pytest.mark.slow] * (FIRST[case.kind] is not case)) for case in BASES
]
TEXT = laws.SPECS["text"]


@pytest.mark.parametrize("law", lora_laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("case", FORMS, ids=str)
def test_lora_obeys(case: laws.Case, law: Callable) -> None:
    law(LoRA, case.build())


def test_float32_merges_to_rounding() -> None:
    for case in BASES:
        base = case.build().float()
        net = lora_laws.adapted(LoRA, base)
        tokens, context = laws.rows(net, 4), laws.contexts(net, 4)
        one, two = (n.log_prob(tokens, context) for n in (net, net.merged()))
        assert (one - two).abs().max() < 1e-5, case


class Tying(LoRA):
    """functional_call's default: one tensor for both names of a tied weight."""

    def _call(self, weights, method, *args, **kwargs):
        named = {f"base.{name}": value for name, value in weights.items()}
        return functional_call(self._caller[0], named, (method, *args), kwargs)


class Bypassed(LoRA):
    """Decoding runs the base itself."""

    def start(self, batch, length, context=None):
        logits, state = self.base.start(batch, length, context)
        return logits, AdaptedState(state, {}, net=self.serial)


class RandomStart(LoRA):
    """B begins at random."""

    def reset(self):
        for _, a, b in self._pairs():
            torch.nn.init.normal_(a)
            torch.nn.init.normal_(b)


class InPlace(LoRA):
    """Merging adds to W, and unmerging subtracts: rounding is left."""

    def merge(self):
        self.eval()
        self.added = {n: v - self.base.get_parameter(n) for n, v in self._computed().items()}
        for name, change in self.added.items():
            self.base.get_parameter(name).data += change
        self._merged = {name: self.base.get_parameter(name).data.clone() for name in self.added}
        return self

    def unmerge(self):
        for name, change in self.added.items():
            self.base.get_parameter(name).data -= change
        self._merged = None
        return self


class Thawed(LoRA):
    """The base is trained too."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.base.requires_grad_(True)


class Stale(LoRA):
    """Merged tensors are kept in training."""

    def train(self, mode=True):
        return torch.nn.Module.train(self, mode)


SMALL = partial(TransformerLanguageModel, width=8, depth=1, heads=2)
MUTANTS: list[tuple[type, Callable, Any]] = [
    (Tying, lora_laws.law_tied, partial(SMALL, tied=True)),
    (Bypassed, lora_laws.law_merged, SMALL),
    (RandomStart, lora_laws.law_starts_as_base, SMALL),
    (InPlace, lora_laws.law_merged, SMALL),
    (Thawed, lora_laws.law_frozen, SMALL),
    (Stale, lora_laws.law_frozen, SMALL),
]


@pytest.mark.parametrize(
    ("mutant", "law", "make"), MUTANTS, ids=lambda v: getattr(v, "__name__", "")
)
def test_law_catches(mutant: type, law: Callable, make: Callable) -> None:
    law(LoRA, laws.lively(make(TEXT)))
    with pytest.raises((AssertionError, RuntimeError)):
        law(mutant, laws.lively(make(TEXT)))


def test_scaling() -> None:
    def scale(**options: object) -> float:
        return LoRA(TEXT, SMALL, rank=4, **options).scale

    assert scale() == 1
    assert scale(alpha=8) == 2
    assert scale(alpha=8, scaling="rslora") == 4
    net = LoRA(TEXT, SMALL, rank=4, alpha=2)
    name = "blocks.0.mlp.hidden.weight"
    pair = net.low_rank.get_submodule(name)
    assert pair.A.shape == (4, 8)
    assert pair.B.shape == (32, 4)
    assert pair.A.abs().max() <= 1 / math.sqrt(8)
    torch.nn.init.normal_(pair.B)
    expected = net.base.get_parameter(name) + 0.5 * pair.B @ pair.A
    assert torch.allclose(net.effective()[name], expected)


def test_half_precision_is_rounded_once() -> None:
    net = lora_laws.adapted(LoRA, laws.lively(SMALL(TEXT)).bfloat16())
    for name, weight in net.effective().items():
        pair = net.low_rank.get_submodule(name)
        exact = net.base.get_parameter(name).double()
        exact = exact + net.scale * pair.B.double() @ pair.A.double()
        assert torch.equal(weight, exact.float().bfloat16()), name


def test_default_targets_leave_embeddings_and_the_head() -> None:
    assert LoRA(TEXT, partial(LSTMLanguageModel, width=8, depth=1)).names == [
        "layers.0.weight_ih_l0",
        "layers.0.weight_hh_l0",
    ]
    found = LoRA(TEXT, partial(SMALL, positions="learned", tied=True)).names
    assert [name.removeprefix("blocks.0.") for name in found] == [
        *("attention.qkv.weight", "attention.out.weight"),
        *("mlp.hidden.weight", "mlp.out.weight"),
    ]


def test_adapters_on_one_base_take_turns() -> None:
    base = laws.lively(SMALL(TEXT))
    plain = lora_laws.results(base)
    nets = [lora_laws.adapted(LoRA, base), lora_laws.adapted(LoRA, base, targets=["*.mlp.*"])]
    alone = [lora_laws.results(net) for net in nets]
    tokens = laws.rows(base, 4)
    with torch.no_grad():
        # Two rows of two adapters and one of the base are decoded in turns.
        begun = [net.start(4, 5) for net in (*nets, base)]
        found, states = [[logits[:, None]] for logits, _ in begun], [state for _, state in begun]
        for t in range(4):
            for i, net in enumerate((*nets, base)):
                logits, states[i] = net.advance(tokens[:, t : t + 1], states[i])
                found[i].append(logits)
    for parts, expected in zip(found, (*alone, plain), strict=True):
        assert (
            torch.equal(torch.cat(parts, 1), expected["decoding"])
            or (torch.cat(parts, 1) - expected["decoding"]).abs().max() < 1e-12
        )
    with pytest.raises(UserError, match="another network made it"):
        nets[0].advance(tokens[:, :1], nets[1].start(4, 5)[1])


def test_rows_keep_the_weights_that_they_were_begun_with() -> None:
    """Training between two steps of a sampler does not mix two networks in one row."""
    net = lora_laws.adapted(LoRA, laws.lively(SMALL(TEXT)))
    tokens = laws.rows(net, 4)
    before = lora_laws.results(net)["decoding"]
    with torch.no_grad():
        first, state = net.start(4, 5)
        for parameter in net.low_rank.parameters():
            parameter.add_(1.0)
        rest, _ = net.advance(tokens[:, :-1], state)
    assert (torch.cat([first[:, None], rest], 1) - before).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "model.net.rank: 0 is out of range; choose at least 1"),
        ({"alpha": 0.0}, "model.net.alpha: 0.0 is out of range"),
        ({"alpha": math.nan}, "model.net.alpha: nan is out of range"),
        ({"lr_ratio": 0.0}, "model.net.lr_ratio: 0.0 is out of range"),
        ({"scaling": "x"}, "model.net.scaling: x is out of range; choose lora or rslora"),
        (
            {"targets": ["*.nothing"]},
            r"model.net.targets: '\*.nothing' matches no matrix of Transf",
        ),
        ({"targets": ["*.bias"]}, r"model.net.targets: '\*.bias' matches no matrix of Transformer"),
        ({"targets": []}, r"model.net.targets: \[\] adapts nothing"),
    ],
)
def test_bad_options_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LoRA(TEXT, SMALL, **options)


def test_bases_that_cannot_be_adapted() -> None:
    with pytest.raises(UserError, match=r"model.net.base: KneserNeyNGram has no matrix to adapt"):
        LoRA(TEXT, partial(KneserNeyNGram, order=2))
    with pytest.raises(UserError, match="cannot condition on the context"):
        LoRA(laws.SPECS["pairs"], partial(LSTMLanguageModel, width=8))
    other = Spec(3, (7,))
    with pytest.raises(UserError, match=r"model.net.base: it is for .* not for"):
        LoRA(TEXT, lambda spec: SMALL(other))
    assert isinstance(LoRA(laws.SPECS["grey"], partial(PixelCNN, width=12, depth=1)), LoRA)


LABELLED = Spec(3, (1,), context=Spec(6, (4,), pad_id=5))
MASKED = Spec(7, (6,), context=Spec(9, (6,), pad_id=8))


def trained_names(net: torch.nn.Module) -> set[str]:
    return {name for name, p in net.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", [Classifier, Regressor])
def test_the_new_head_of_a_classifier_is_not_frozen(kind: type) -> None:
    name = kind.__name__
    with pytest.raises(
        UserError, match=rf"model.net.base: {name} .* {name}\(base=LoRA\(\.\.\.\)\)"
    ):
        LoRA(LABELLED, partial(kind, base=SMALL))
    names = trained_names(kind(LABELLED, base=partial(LoRA, base=SMALL, targets=["*qkv*"])))
    low_rank = {f"base.low_rank.blocks.0.attention.qkv.weight.{factor}" for factor in "AB"}
    assert names == {"head.weight", "head.bias"} | low_rank


def test_what_the_base_does_not_train_is_not_trained() -> None:
    base = SMALL(TEXT)
    base.blocks[0].mlp.requires_grad_(False)
    targets = ["*qkv*", "*mlp*"]
    net = LoRA(TEXT, lambda _: base, targets=targets)
    assert trained_names(net) == {f"low_rank.blocks.0.attention.qkv.weight.{f}" for f in "AB"}
    assert len(trained_names(LoRA(TEXT, lambda _: base, targets=targets))) == 6  # a shared base


@pytest.mark.parametrize(
    "kind", [partial(BERT, width=8, depth=1, heads=2), partial(BiLSTM, width=8)]
)
@pytest.mark.parametrize("tied", [True, False])
def test_heads_of_masked_networks_are_not_adapted_by_default(kind: Callable, tied: bool) -> None:
    names = LoRA(MASKED, partial(kind, tied=tied)).names
    assert names
    assert not {"weight", "embed_source.weight"}.intersection(names)
