"""Constraints: the tokens that are kept are those that an enumeration of the language keeps."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
from languages import LETTERS, kept, words

from arlm.domains import Domain, TextDomain
from arlm.models.rnn import LSTMLanguageModel
from arlm.sampling import begin, prepare
from arlm.sampling.finish import finished
from arlm.sampling.processors import parse_processors
from arlm.sampling.processors.constraint import Constraint
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.steps import Steps
from arlm.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    SentenceTokenizer,
    Tokenizer,
    WordTokenizer,
)

pytest.importorskip("llguidance", reason="needs llguidance, of the extra [constrained]")

FIVE = "\N{EXTENDED ARABIC-INDIC DIGIT FIVE}"
REGEXES = [
    "abcd",
    "(ab|a)c*d?",
    "a{2,4}b?",
    "(a|b)*abb",
    "[^a]+",
    "(abc|abd|b)+",
    "(?:a|ab)(?:c|bcd)(?:d*)",
    "^(a.c|d)$",
    "a|b|",
    "(a|aa)*b|c*",
    ".*",
]


@pytest.mark.parametrize("regex", REGEXES)
def test_kept_letters_are_those_of_matching_continuations(regex: str) -> None:
    """Every string of up to 3 letters, continued by up to 4 more; `re.fullmatch` decides."""
    matching = {word for word in words("abcd", 7) if re.fullmatch(regex, word)}
    prefixes = {word[:n] for word in matching for n in range(len(word) + 1)}
    constraint = Constraint(regex).bind(LETTERS)
    for prefix in sorted(prefixes & set(words("abcd", 3))):
        expected = {"abcd".index(c) for c in "abcd" if prefix + c in prefixes}
        expected |= {4} if prefix in matching else set()
        assert kept(constraint, LETTERS, LETTERS.encode(prefix).tolist()) == expected, prefix


@pytest.mark.parametrize("regex", REGEXES)
def test_kept_tokens_of_several_letters_are_those_of_every_division(regex: str) -> None:
    """Byte pairs: a token is kept if the text may go on with its letters, whether BPE would divide it so or not."""
    tokenizer = BPETokenizer.train(["abcd abb aab ccd abcabd bcd aaaa"] * 5, 275)
    domain = TextDomain(tokenizer)
    spelled = [s.decode(errors="replace") for s in tokenizer.spellings()[0]]
    usable = {i: s for i, s in enumerate(spelled) if set(s) <= set("abcd")}
    assert max(map(len, usable.values())) > 2
    matching = {word for word in words("abcd", 8) if re.fullmatch(regex, word)}
    prefixes = {word[:n] for word in matching for n in range(len(word) + 1)}
    constraint = Constraint(regex).bind(domain)
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        tokens: list[int] = []
        while True:
            text = "".join(usable[t] for t in tokens)
            if len(text) > 3:
                break
            expected = {t for t, s in usable.items() if text + s in prefixes}
            found = kept(constraint, domain, tokens)
            assert {t for t in found if t in usable} == expected, text
            assert (tokenizer.vocab_size in found) == (text in matching)
            if not expected:
                break
            choice = int(torch.randint(len(expected), (1,), generator=random))
            tokens.append(sorted(expected)[choice])


def test_a_grammar_keeps_balanced_brackets() -> None:
    """Dyck words of up to 8 letters of two kinds of brackets."""

    def balanced(word: str) -> bool:
        while (shorter := word.replace("()", "").replace("[]", "")) != word:
            word = shorter
        return not word

    domain = TextDomain(CharacterTokenizer("()[]"))
    grammar = 'start: pair*\npair: "(" pair* ")" | "[" pair* "]"\n'
    constraint = Constraint(grammar=grammar).bind(domain)
    alphabet = domain.tokenizer.alphabet  # type: ignore[attr-defined]
    matching = {word for word in words("()[]", 8) if balanced(word)}
    prefixes = {word[:n] for word in matching for n in range(len(word) + 1)}
    for prefix in sorted(prefixes & set(words("()[]", 3))):
        expected = {i for i, c in enumerate(alphabet) if prefix + c in prefixes}
        expected |= {4} if prefix in matching else set()
        assert kept(constraint, domain, domain.encode(prefix).tolist()) == expected, prefix


def test_bytes_of_a_character_are_kept_one_by_one() -> None:
    domain = TextDomain(ByteTokenizer())
    constraint = Constraint("[é日]").bind(domain)
    assert kept(constraint, domain, []) == {0xC3, 0xE6}
    assert kept(constraint, domain, [0xE6]) == {0x97}
    assert kept(constraint, domain, [0xE6, 0x97]) == {0xA5}
    anything = kept(Constraint(".*").bind(domain), domain, [])
    assert 0x41 in anything
    assert not anything & {0x0A, 0x80, 0xC0, 0xC1, 0xF5, 0xFF}  # a newline, and no UTF-8


def test_digits_of_every_script_are_digits() -> None:
    domain = TextDomain(CharacterTokenizer(f"1{FIVE}x"))
    one, arabic, _ = (domain.encode(c).item() for c in f"1{FIVE}x")
    assert kept(Constraint(r"\d+").bind(domain), domain, []) == {one, arabic}
    assert kept(Constraint("[0-9]+").bind(domain), domain, []) == {one}


WORDS: dict[str, Tokenizer] = {
    "word": WordTokenizer(["the", "cat", "sat"]),
    "sentence": SentenceTokenizer(["the", "cat", "sat", "."]),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_space_comes_before_each_word_but_the_first(name: str) -> None:
    domain = TextDomain(WORDS[name])
    net = LSTMLanguageModel(domain.spec(12), width=8, depth=1).eval()
    regex = "(the|cat) cat( sat| the){1,2}" + (r"\." if name == "sentence" else "")
    constraint = Constraint(regex).bind(domain)
    texts = set()
    for text, cut in drawn(net, constraint, domain, rows=40):
        assert not cut
        assert re.fullmatch(regex, text), text
        texts.add(text)
    assert len(texts) > 2


def drawn(net: Any, constraint: Constraint, domain: Domain, rows: int) -> list[tuple[str, bool]]:
    """The text of each row, and whether its length ended it."""
    forced, seeds = prepare(net, range(rows), None, None)[:2]
    steps = Steps(net, begin(net, forced, seeds, [constraint]), block=3)
    for _ in steps:
        pass
    state = steps.state
    over = finished(state.processors, state.memories)
    assert over is not None
    lengths = state.lengths.tolist()
    texts = [domain.decode(row[:length]) for row, length in zip(state.tokens, lengths, strict=True)]
    cut = [not each for each in over.tolist()]
    assert all(length == net.spec.length for length, c in zip(lengths, cut, strict=True) if c)
    return list(zip(texts, cut, strict=True))


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]{1,6}$"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def test_json_fits_its_schema() -> None:
    domain = TextDomain(ByteTokenizer())
    net = LSTMLanguageModel(domain.spec(60), width=8, depth=1).eval()
    constraint = Constraint(json_schema=json.dumps(PERSON)).bind(domain)
    for text, cut in drawn(net, constraint, domain, rows=50):
        assert not cut
        read = json.loads(text)
        assert list(read) == ["name", "age", "tags"]
        assert 0 <= read["age"] <= 150
        assert set(read["tags"]) <= {"x", "y"}
        assert json.dumps(read, separators=(",", ":")) == text  # no white space
    free = json.dumps({**PERSON, "x-guidance": {"whitespace_flexible": True}})
    spaces = drawn(net, Constraint(json_schema=free).bind(domain), domain, rows=20)
    assert any(" " in text for text, _ in spaces)


def test_a_schema_and_a_grammar_are_read_from_files(tmp_path: Any) -> None:
    domain = TextDomain(ByteTokenizer())
    (tmp_path / "age.json").write_text('{"type": "integer", "maximum": 9}')
    (tmp_path / "word.lark").write_text('start: "é" | "b"\n', encoding="utf-8")
    schema = Constraint(json_schema=str(tmp_path / "age.json")).bind(domain)
    text = Constraint(json_schema='{"type": "integer", "maximum": 9}').bind(domain)
    assert kept(schema, domain, []) == kept(text, domain, []) == {ord(c) for c in "-0123456789"}
    grammar = Constraint(grammar=str(tmp_path / "word.lark")).bind(domain)
    assert kept(grammar, domain, []) == {0xC3, ord("b")}


def test_spaces_belong_to_an_expression() -> None:
    assert parse_processors("top_k = 3, constraint=a b") == (TopK(3), Constraint("a b"))
