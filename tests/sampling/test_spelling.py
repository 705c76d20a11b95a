"""Text in place of tokens: bad words, logit bias, breakers and forced tokens are spelled by the domain's tokenizer."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass

import pytest
import torch

from arlm.core import Spec
from arlm.domains import Domain, ImageDomain, TextDomain
from arlm.errors import UserError
from arlm.inference.next_token import described
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import generate
from arlm.sampling.presets import parse_preset
from arlm.sampling.processors import History, LogitsProcessor, parse_processors
from arlm.sampling.processors.bad_words import BadWords
from arlm.sampling.processors.dry import Dry
from arlm.sampling.processors.forced_tokens import ForcedTokens
from arlm.sampling.processors.keep_end import KeepEnd
from arlm.sampling.processors.logit_bias import LogitBias
from arlm.tokenizers import BPETokenizer, CharacterTokenizer, WordTokenizer

LETTERS = TextDomain(CharacterTokenizer("ab c\n"))
WORDS = TextDomain(WordTokenizer(["the", "cat"]))
BPE = TextDomain(BPETokenizer.train(["the cat on a cat on the cat cat\n\n"] * 20, 264))


def ids(domain: TextDomain, text: str) -> tuple[int, ...]:
    return tuple(domain.encode(text).tolist())


def texts(processors: tuple, domain: TextDomain, rows: int = 300) -> list[str]:
    torch.manual_seed(0)
    net = TransformerLanguageModel(Spec(domain.vocab_size, (8,)), width=8, depth=1, heads=2).eval()
    bound = [processor.bind(domain) for processor in processors]
    return [domain.decode(row) for row in generate(net, range(rows), processors=bound).tokens]


def test_bad_words_are_spelled_alone_and_after_a_space() -> None:
    alone, spaced = ids(BPE, "cat"), ids(BPE, " cat")
    assert (len(spaced), spaced == alone) == (1, False)
    both = (alone, spaced)
    assert BadWords(("cat",)).bind(BPE) == BadWords(both)
    assert BadWords((" cat", (3,), "cat")).bind(BPE) == BadWords((spaced, (3,), alone))
    assert BadWords((" cat",)).bind(BPE) == BadWords((spaced,))
    assert BadWords(("the cat",)).bind(WORDS) == BadWords(((2, 3),))  # the space changes nothing
    narrow = TextDomain(CharacterTokenizer("ab"))  # which has no space
    assert BadWords(("ab",)).bind(narrow) == BadWords(((0, 1),))


def test_bad_words_do_not_occur() -> None:
    free, banned = texts((), LETTERS), texts((BadWords(("ab", "c")),), LETTERS)
    assert sum("ab" in text for text in free) > 30
    assert not any("ab" in text or "c" in text for text in banned)
    assert any("ba" in text for text in banned)


def test_logit_bias_is_of_the_token_that_a_text_is() -> None:
    (space,) = ids(BPE, " cat")
    (letter,) = ids(BPE, "x")
    assert LogitBias({" cat": 2.0}).bind(BPE) == LogitBias({space: 2.0})
    (alone,) = ids(BPE, "cat")
    assert LogitBias({"cat": 2.0}).bind(BPE) == LogitBias({space: 2.0, alone: 2.0})
    assert LogitBias({"x": -1.0}).bind(BPE) == LogitBias({letter: -1.0})
    both = LogitBias({"the": 1.0}).bind(WORDS)
    assert both == LogitBias({2: 1.0})
    own = {"cat": 2.0, space: -3.0}  # which goes over that of the word after a space
    assert LogitBias(own).bind(BPE) == LogitBias({space: -3.0, alone: 2.0})
    with pytest.raises(UserError, match=r"logit_bias: token \d+ has two values; give one"):
        LogitBias({"x": 1.0, letter: 2.0}).bind(BPE)
    with pytest.raises(UserError, match=r"logit_bias: 'dog' is 3 tokens, \[.*\]; give a text of"):
        LogitBias({"dog": 1.0}).bind(BPE)
    assert not any("a" in text for text in texts((LogitBias({"a": -torch.inf}),), LETTERS))


def test_breakers_are_all_tokens_with_the_text() -> None:
    found = Dry(1.0, breakers=("\n", 7)).bind(BPE).breakers
    expected = [
        token for token in range(BPE.vocab_size) if "\n" in BPE.decode(torch.tensor([token]))
    ]
    assert len(expected) > 1
    assert found == (*expected, 7) if 7 not in expected else tuple(expected)
    with pytest.raises(
        UserError, match="dry:breakers: no token has 'ab' in it; choose a text with"
    ):
        Dry(1.0, breakers=("ab",)).bind(LETTERS)


def test_forced_tokens_begin_the_text_as_it_is_written() -> None:
    assert ForcedTokens((" cat", 5)).bind(BPE) == ForcedTokens((*ids(BPE, " cat"), 5))
    forced = texts((ForcedTokens(("ab", 0, " c")),), LETTERS, 20)
    assert all(text.startswith("ab\n c") for text in forced)


@pytest.mark.parametrize(
    "processor", [BadWords(("é",)), LogitBias({"é": 1.0}), ForcedTokens(("é",))]
)
@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (LETTERS, r"the tokenizer cannot spell 'é' \(character 'é' is unknown to the tokenizer\)"),
        (
            WORDS,
            r"the tokenizer cannot spell 'é' \(the word 'é' is not in the vocabulary\); choose",
        ),
        (
            ImageDomain(2, 2, 1, 2),
            "'é' is a text, but ImageDomain has no tokenizer; give numbers",
        ),
    ],
)
def test_what_cannot_be_spelled_is_one_line(processor, domain: Domain, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message) as refused:
        processor.bind(domain)
    assert "\n" not in str(refused.value)


def test_an_empty_text_and_one_without_a_tokenizer_are_refused() -> None:
    with pytest.raises(UserError, match="bad_words: one has no token"):
        BadWords(("",))
    for processor in (
        LogitBias({"": 1.0}),
        ForcedTokens(("",)),
        Dry(1.0, breakers=("",)),
    ):
        with pytest.raises(UserError, match="one text is empty; give at least one character"):
            processor.bind(LETTERS)
    for processor in (
        BadWords(("a",)),
        LogitBias({"a": 1.0}),
        ForcedTokens(("a",)),
        Dry(1.0, breakers=("a",)),
    ):
        net = TransformerLanguageModel(Spec(5, (8,)), width=8, depth=1, heads=2).eval()
        with pytest.raises(UserError, match="'a' is a text, and there is no tokenizer"):
            generate(net, [0], processors=[processor])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('bad_words=["a, b: c","]\\"}",[1,2]]', BadWords(("a, b: c", ']"}', (1, 2)))),
        (
            'logit_bias={"a,: b}":-2.5,7:-inf,"12":1.0}',
            LogitBias({"a,: b}": -2.5, 7: -torch.inf, "12": 1}),
        ),
        ('dry=0.8:breakers=["\\n",":",7]', Dry(0.8, breakers=("\n", ":", 7))),
        ('forced_tokens=["The ",7]', ForcedTokens(("The ", 7))),
    ],
)
def test_texts_are_written_in_quotes(text: str, expected: object) -> None:
    assert parse_processors(f"top_k=5,{text},greedy")[1] == expected
    (one,) = parse_processors(text)
    assert parse_processors(described(one)) == (one,)


@dataclass(frozen=True)
class OwnWords(BadWords):
    note: str = ""


@dataclass(frozen=True)
class OwnBias(LogitBias):
    note: str = ""


@dataclass(frozen=True)
class OwnForced(ForcedTokens):
    note: str = ""


@dataclass(frozen=True)
class OwnKeepEnd(KeepEnd):
    note: str = ""


@pytest.mark.parametrize(
    ("own", "bound"),
    [
        (OwnWords(("a",), "x"), OwnWords(((2,), (1, 2)), "x")),
        (OwnBias({"a": 1.0}, "x"), OwnBias({2: 1.0}, "x")),
        (OwnForced(("ab",), "x"), OwnForced((2, 3), "x")),
        (OwnKeepEnd(OwnForced(("a",)), "x"), OwnKeepEnd(OwnForced((2,)), "x")),
    ],
)
def test_a_bound_subclass_keeps_its_class_and_fields(
    own: LogitsProcessor, bound: LogitsProcessor
) -> None:
    assert own.bind(LETTERS) == bound


def test_a_later_change_of_the_dict_changes_no_bias() -> None:
    given: dict[str | int, float] = {0: 1.0, 2: -torch.inf}
    bias = LogitBias(given)
    empty = torch.empty(1, 0, dtype=torch.long)
    history = History(empty, torch.zeros(1).long(), torch.zeros(1).long(), Spec(3, (4,)))
    for change in (lambda: given.update({0: 5.0}), lambda: given.update({9: 1.0})):
        expected = torch.tensor([[1.0, 0.0, -torch.inf]])
        assert torch.equal(bias(torch.zeros(1, 3), history), expected)
        change()
        assert torch.equal(bias(torch.zeros(1, 3), history), expected)
        for other in (pickle.loads(pickle.dumps(bias)), copy.deepcopy(bias)):
            assert other == bias == LogitBias({0: 1.0, 2: -torch.inf})
            assert torch.equal(other(torch.zeros(1, 3), history), expected)


def test_presets_take_texts() -> None:
    found = parse_preset(
        'llamacpp:logit_bias={"a: ":1}:dry_multiplier=1:dry_sequence_breakers=["\\n"]'
    )
    assert found[0] == LogitBias({"a: ": 1.0})
    assert found[1].breakers == ("\n",)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('bad_words=["a]', r"--processors: the quotes in .* do not match; write for example"),
        ("bad_words=[a]", "needs lists of tokens for words, not .* write for example words="),
        ('logit_bias={"a"}', "needs numbers of tokens for bias"),
        ('logit_bias={"a":1;2}', "needs numbers of tokens for bias"),
        ("logit_bias={1:2,,3:4}", "needs numbers of tokens for bias"),
        ('logit_bias={"a,":1,}', "needs numbers of tokens for bias"),
        ("logit_bias={,}", "needs numbers of tokens for bias"),
        (
            'logit_bias={"a":1,"a":2}',
            '^--processors: logit_bias:bias: "a" has two values; give one$',
        ),
        ("logit_bias={1:2,3:4,01:2}", "logit_bias:bias: 01 has two values; give one"),
        ('forced_tokens=[["a"]]', "needs a list of tokens for tokens"),
    ],
)
def test_what_is_no_list_of_texts_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_processors(text)
