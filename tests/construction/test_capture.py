"""Class path and arguments are recorded once, when an object is constructed, and later changes leave them alone."""

from __future__ import annotations

import copy
import json
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from arlm.checkpoints import build, describe
from arlm.construction import Captured, capture
from arlm.core import Autoregressor, Spec
from arlm.data.module import TokenDataModule
from arlm.domains import Domain, TextDomain, TranslationDomain
from arlm.errors import UserError
from arlm.models.rnn import LSTMLanguageModel
from arlm.tokenizers import ByteTokenizer, CharacterTokenizer, WordTokenizer
from datamodules.dates import Dates
from datamodules.digits import Digits
from datamodules.text_file import TextFile

SPEC = Spec(5, (6,))


class Base(Captured):
    def __init__(self, a: int, b: int = 2, c: object = None) -> None:
        self.seen = a, b, c


class Open(Base):
    def __init__(self, d: float = 0.5, **options) -> None:
        super().__init__(options.pop("a", 1), **options)
        self.d = d


class Fixing(Base):
    """Gives one argument to its base by itself."""

    def __init__(self, a: int, **options) -> None:
        super().__init__(a, c="fixed", **options)


class Further(Fixing):
    def __init__(self, e: str = "e", **options) -> None:
        super().__init__(**options)


class Closed(Base):
    def __init__(self, e: str) -> None:
        super().__init__(3, 4)


class Inherits(Base):
    pass


class Empty(Captured):
    pass


def arguments(thing: Captured) -> dict:
    return json.loads(json.dumps(describe(thing)))["init_args"]


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (Base(1), {"a": 1, "b": 2, "c": None}),
        (Base(1, c="x", b=7), {"a": 1, "b": 7, "c": "x"}),
        (Inherits(1), {"a": 1, "b": 2, "c": None}),
        (Open(), {"d": 0.5, "b": 2, "c": None}),
        (Open(1.5, a=4, b=5), {"d": 1.5, "a": 4, "b": 5, "c": None}),
        (Fixing(1), {"a": 1, "b": 2}),
        (Further(a=1, b=3), {"a": 1, "b": 3, "e": "e"}),
        (Further(a=1), {"a": 1, "b": 2, "e": "e"}),
        (Closed("x"), {"e": "x"}),
        (Empty(), {}),
    ],
)
def test_arguments_with_the_defaults_of_all_constructors(thing: Captured, expected: dict) -> None:
    assert arguments(thing) == expected
    assert describe(type(thing)(**expected)) == describe(thing)


def test_a_record_is_a_copy() -> None:
    values = [1, [2, 3]]
    thing = Base(1, c=values)
    values[1].append(4)
    values.append(5)
    thing.seen = thing.b = None
    assert arguments(thing) == {"a": 1, "b": 2, "c": [1, [2, 3]]}


def test_a_record_by_reference_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "copied", lambda value: value)
    with pytest.raises(AssertionError):
        test_a_record_is_a_copy()


def test_plain_values() -> None:
    numbers = Base(torch.tensor(3).numpy()[()], c=(Path("x/y"), {"b", "a"}, range(2), True))
    assert arguments(numbers) == {"a": 3, "b": 2, "c": ["x/y", ["a", "b"], [0, 1], True]}
    letters = (letter for letter in "bca")
    assert CharacterTokenizer(letters).decode(torch.arange(3)) == "abc"
    assert arguments(CharacterTokenizer(letter for letter in "bca"))["alphabet"] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.zeros(2), "Tensor"),
        ({"a": 1}, "dict"),
        (object(), "object"),
        (nn.Linear(1, 1), "Linear"),
        ([1, LSTMLanguageModel(SPEC, width=4)], "LSTMLanguageModel"),
    ],
)
def test_what_is_not_plain_is_refused_when_it_is_described(value: object, kind: str) -> None:
    thing = Base(1, c=value)
    message = rf"test_capture\.Base cannot be described: its argument c is a {kind}; give plain"
    with pytest.raises(UserError, match=message):
        describe(thing)
    with pytest.raises(UserError, match="its argument c is a function; let it build a network"):
        describe(Base(1, c=print))


def test_a_wrong_call_has_the_message_of_python() -> None:
    with pytest.raises(TypeError, match=r"^Base\.__init__\(\) missing 1 required .* 'a'$"):
        Base()


def test_tokenizers_are_described_within_domains() -> None:
    source, target = CharacterTokenizer("ab", unknown=True), WordTokenizer(["x", "y"])
    domain = TranslationDomain(source, target, lowercase=True)
    source.alphabet = target.words = domain.source = domain.lowercase = None
    again = build(json.loads(json.dumps(describe(domain))), Domain)
    assert describe(again) == describe(domain)
    assert again.lowercase
    assert again.spec(4) == TranslationDomain(
        CharacterTokenizer("ab", unknown=True), WordTokenizer(["x", "y"]), True
    ).spec(4)
    assert arguments(ByteTokenizer()) == {}


def test_data_modules_record_the_options_that_they_pass_on(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("some text " * 99)
    data = TextFile(str(tmp_path / "text"), "character", length=8)
    found = arguments(data)
    assert found["length"] == 8
    assert found["streams"] == 8  # a default of the base
    assert describe(build(describe(data), TokenDataModule)) == describe(data)
    assert set(arguments(Dates())) == {
        *("pairs", "length", "batch_tokens", "joint", "seed", "num_workers")
    }
    assert arguments(Digits(labels=True, label_dropout=0.2))["label_dropout"] == 0.2


def test_a_changed_class_is_described_as_it_was_built() -> None:
    net = LSTMLanguageModel(SPEC, width=4, depth=1)
    before = describe(net, "spec")
    assert before["class_path"] == "arlm.models.rnn.LSTMLanguageModel"
    assert before["init_args"]["tied"] is False  # a default, kept if it changes later
    parametrizations.weight_norm(net.head)
    net.__class__ = type("FSDPLSTMLanguageModel", (type(net),), {})
    net.width = net.depth = 99
    assert describe(net, "spec") == before


def test_copies_and_pickles_keep_the_record() -> None:
    net = LSTMLanguageModel(SPEC, width=4, depth=1)
    domain = TextDomain(CharacterTokenizer("abc"))
    for copied in (copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))):
        for thing in (domain, Digits(batch_size=7)):
            assert describe(copied(thing)) == describe(thing)
        assert describe(copied(net), "spec") == describe(net, "spec")
    assert "construction" not in " ".join(net.state_dict())


class Holder(Autoregressor):
    """Holds a network, and maybe others."""

    def __init__(self, spec, base, others=(), scale=1.0, keep=True) -> None:
        super().__init__(spec)
        if keep:
            self.base = base(spec)
        self.others = nn.ModuleList(make(spec) for make in others)

    def forward(self, tokens, context=None):
        return self.base(tokens, context)


def test_a_factory_is_described_by_what_it_built() -> None:
    small = partial(LSTMLanguageModel, width=4, depth=1)
    inner = partial(Holder, base=small, scale=2.0)
    net = Holder(SPEC, inner, [small, LSTMLanguageModel])
    found = describe(net, "spec")["init_args"]
    assert found["scale"] == 1.0
    assert found["base"]["init_args"]["scale"] == 2.0
    assert found["base"]["init_args"]["base"] == found["others"][0]
    assert found["others"][0]["class_path"] == "arlm.models.rnn.LSTMLanguageModel"
    assert found["others"][0]["init_args"]["width"] == 4
    assert found["others"][0]["spec"]["shape"] == [6]
    assert found["others"][1]["init_args"]["width"] != 4
    assert json.loads(json.dumps(found)) == found
    with pytest.raises(UserError, match="its argument base is a function; let it build a network"):
        describe(Holder(SPEC, small, keep=False), "spec")
    pickle.dumps(Holder(SPEC, lambda spec: small(spec)))  # the factory itself is not kept
