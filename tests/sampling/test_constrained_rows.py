"""Rows drawn under a constraint: their distribution, their end, their memories, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from languages import LETTERS, kept, words
from torch import Tensor

from arlm.core import Spec
from arlm.domains import TranslationDomain
from arlm.errors import UserError
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import Sampler, begin, fixed_point, generate, prepare
from arlm.sampling.processors.constraint import Constraint, Memory
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.sliding import begin_steps
from arlm.sampling.steps import Steps
from arlm.states import concatenate

pytest.importorskip("llguidance", reason="needs llguidance, of the extra [constrained]")


def network(eos_id: int | None = None, length: int = 8) -> TransformerLanguageModel:
    torch.manual_seed(0)
    spec = Spec(4 if eos_id is None else 5, (length,), eos_id=eos_id)
    net = TransformerLanguageModel(spec, width=8, depth=1, heads=2).double().eval()
    torch.nn.init.normal_(net.head.weight, std=1.5)
    return net


@pytest.mark.parametrize("end", [None, 4])
def test_masking_is_not_conditioning(end: int | None) -> None:
    """Both distributions over the language, enumerated: masked is normalised at each token, conditioned once."""
    net, regex = network(end, length=4), "a[bc]|b[a-d]d|ca"
    constraint = Constraint(regex).bind(LETTERS)
    language = [word for word in words("abcd", 3) if re.fullmatch(regex, word)]
    masked, joint = [], []
    for word in language:
        tokens = LETTERS.encode(word).tolist()
        row = torch.tensor([tokens + ([4] if end else [])])
        with torch.inference_mode():
            nats = net(row).log_softmax(-1)[0]
        weight = 1.0
        for t, token in enumerate(row[0].tolist()):
            allowed = sorted(kept(constraint, LETTERS, tokens[:t], end=end is not None))
            weight *= float(nats[t, token].exp() / nats[t, allowed].exp().sum())
        masked.append(weight)
        joint.append(float(nats.gather(1, row.T).sum().exp()))
    conditioned = [p / sum(joint) for p in joint]
    assert sum(masked) == pytest.approx(1, abs=1e-12)
    distance = sum(abs(p - q) for p, q in zip(masked, conditioned, strict=True)) / 2
    assert distance > 0.05  # total variation: they are two distributions

    rows = 20_000
    result = generate(net, range(rows), processors=[constraint])
    texts = [LETTERS.decode(row[: (row != 4).cumprod(0).sum()]) for row in result.tokens]
    if end is None:  # rows that ended are filled with token 0, the letter a
        sizes = {word: len(word) for word in language}
        texts = [next(w for w in language if t == w + "a" * (4 - sizes[w])) for t in texts]
    counts = torch.tensor([texts.count(word) for word in language]).double()
    assert counts.sum() == rows
    expected = torch.tensor(masked).double() * rows
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert statistic < chi_square_limit(len(language) - 1)
    wrong = torch.tensor(conditioned).double() * rows
    assert float(((counts - wrong) ** 2 / wrong).sum()) > 10 * chi_square_limit(len(language) - 1)


def chi_square_limit(freedom: int) -> float:
    """A bound that chance exceeds once in a million (Laurent, Massart, 2000)."""
    x = 13.82  # -log 1e-6
    return freedom + 2 * (freedom * x) ** 0.5 + 2 * x


def test_the_end_token_is_drawn_where_the_text_may_end() -> None:
    net, regex = network(eos_id=4, length=12), "(ab|a)c*d?"
    tokens = generate(net, range(60), processors=[Constraint(regex).bind(LETTERS)]).tokens
    ends = set()
    for row in tokens.tolist():
        assert 4 in row
        text = "".join("abcd"[t] for t in row[: row.index(4)])
        assert re.fullmatch(regex, text)
        ends.add(text)
    assert "a" in ends  # though it can go on
    assert len(ends) > 3


def test_the_prompt_is_no_part_of_the_text() -> None:
    net = network(length=9)
    prompt = LETTERS.encode("ddd")[None].expand(20, -1)
    given = {"processors": [Constraint("(ab)+c").bind(LETTERS)], "forced": prompt}
    rows = generate(net, range(20), 9, **given)
    for row in rows.tokens:
        assert re.match("ddd(ab)+(ca*)?$", LETTERS.decode(row))


@pytest.mark.parametrize("end", [None, 4])
def test_rows_together_equal_rows_alone_and_whole_passes(end: int | None) -> None:
    net, constraint = network(end, length=10), Constraint("(ab|[cd]{1,3}|b)*a?c").bind(LETTERS)
    tokens = torch.randint(4, (6, 10), generator=torch.Generator().manual_seed(1))
    prompts = torch.tensor([0, 3, 1, 9, 2, 0])
    forced = tokens.where(torch.arange(10) < prompts[:, None], -1)
    given: dict[str, Any] = {"processors": [constraint, TopK(2)]}
    together = generate(net, range(6), forced=forced, **given)
    parallel = fixed_point(net, range(6), forced=forced, **given)
    assert torch.equal(parallel.tokens, together.tokens)
    torch.testing.assert_close(parallel.log_prob, together.log_prob)
    for row in range(6):
        alone = generate(net, [row], forced=forced[row : row + 1], **given)
        assert torch.equal(alone.tokens[0], together.tokens[row])
        torch.testing.assert_close(alone.log_prob[0], together.log_prob[row])


def test_copies_of_a_row_go_their_own_ways() -> None:
    """As the prefixes of a beam: the rows share what they remember until they differ."""
    net, constraint = network(length=10), Constraint("(a[bc]|b[cd]d|c{2}|db){2,4}d").bind(LETTERS)
    forced, seeds = prepare(net, range(9), None, None)[:2]
    steps = Steps(net, begin(net, forced, seeds, [constraint]))
    next(steps)
    allowed = Memory._make(steps.state.memories[0]).allowed
    order = torch.tensor([2, 0, 8, 2, 7, 2])
    assert not torch.equal(allowed[order], allowed[:6])
    before, chosen = steps.state[:], steps.state[order]
    forks = Steps(net, concatenate([chosen, before]))
    for _ in forks:
        pass
    whole = generate(net, range(9), processors=[constraint]).tokens
    assert torch.equal(forks.state.tokens, whole[[*order.tolist(), *range(9)]])
    for _ in steps:  # the first rows go on as if nothing had been copied
        pass
    assert torch.equal(steps.state.tokens, whole)


def test_a_row_that_has_ended_keeps_its_logits() -> None:
    """So that no processor after it meets a row of -inf."""
    constraint = Constraint("ab").bind(LETTERS)
    assert kept(constraint, LETTERS, [0, 1], end=False) == {0, 1, 2, 3}
    assert kept(constraint, LETTERS, [0, 1], end=True) == {4}


def test_a_row_that_ends_as_its_window_is_full_does_not_slide() -> None:
    net = network(length=6)
    constraint = Constraint("([abcd]{6}|[abcd]{9})").bind(LETTERS)
    window = net.max_length
    assert window == 6
    short = Constraint("[abcd]{6}").bind(LETTERS)
    forced, seeds = prepare(net, range(3), 12, None)[:2]
    for one, length in ((short, 6), (constraint, 9)):
        steps = begin_steps(net, forced, seeds, [one], block=4)
        for _ in steps:
            pass
        assert steps.state.lengths.tolist() == [length] * 3


def test_a_row_without_a_token_is_refused_by_every_strategy() -> None:
    """The tokenizer has no x, so that "a" cannot be completed."""
    net = network()
    constraint = Constraint("ax|[b-d]{5}").bind(LETTERS)
    message = "constraint: it masks all tokens that were left at position 1 of row 0; the tokenizer cannot spell"
    starts = generate(net, range(50), 1, processors=[constraint]).tokens.flatten()
    bad, good = int((starts == 0).nonzero()[0]), int((starts > 0).nonzero()[0])
    for strategy in (generate, fixed_point):
        with pytest.raises(UserError, match=message):
            strategy(net, [bad], processors=[constraint])
        # Guesses begin with token 0, "a", which must not count.
        assert strategy(net, [good], processors=[constraint]).tokens[0, 0] > 0
    limited = generate(net, [good, bad], processors=[constraint], lengths=[8, 1])
    assert limited.tokens[1].tolist() == [0] * 8  # a row that has ended is not drawn from
    assert limited.log_prob[0].count_nonzero() == 5
    given = torch.tensor([[-1, 2, -1]])  # nor is a token that is given
    assert generate(net, [bad], processors=[constraint], forced=given).tokens[0, 1] == 2


def test_the_processor_that_drops_the_last_token_is_named() -> None:
    net = network()
    constraint = Constraint("[ab]+").bind(LETTERS)
    best = int(generate(net, [0], 1, processors=[TopK(1)]).tokens)
    other = Constraint("ab"[1 - best] + "+" if best < 2 else "a+").bind(LETTERS)
    with pytest.raises(
        UserError,
        match=r"constraint: it masks all tokens that were left at position 0 of row 0;.*put the",
    ):
        generate(net, [0], processors=[TopK(1), other])
    assert generate(net, [0], processors=[constraint, TopK(1)]).tokens.shape == (1, 8)


def test_given_tokens_outside_of_the_language_end_the_constraint() -> None:
    net, constraint = network(), Constraint("a*b").bind(LETTERS)
    forced = torch.full((1, 8), -1)
    forced[0, 2] = 3
    row = generate(net, [1], processors=[constraint], forced=forced).tokens[0]
    assert row[2] == 3 or 1 in row[:2]
    assert torch.equal(fixed_point(net, [1], processors=[constraint], forced=forced).tokens[0], row)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"regex": "["}, r'regex: .*invalid regex "\[".*unclosed character class; correct it'),
        ({"regex": "a(?=b)"}, "regex: .*look-around"),
        ({"regex": "a\\"}, "regex: .* ends in a single backslash"),
        ({"regex": "x+"}, "regex: no token of the tokenizer begins a text that fits"),
        ({"regex": "()"}, "regex: only the empty text fits it"),
        ({"json_schema": '{"type": "objekt"}'}, "json_schema: .*Invalid type: objekt; correct it"),
        ({"json_schema": '{"type": '}, "json_schema: it is no JSON .*line 1 column"),
        ({"json_schema": '{"$ref": "#/x"}'}, "json_schema: .*Pointer '/x' does not exist"),
        ({"json_schema": '{"type": "null"}'}, "json_schema: no token of the tokenizer begins"),
        ({"json_schema": "none.json"}, "json_schema: cannot read 'none.json' .No such file"),
        ({"grammar": "start: x"}, r'grammar: at 1\(8\): unknown name: "x"; correct it'),
        ({"grammar": 'begin: "a"'}, "grammar: no start rule found"),
        ({"grammar": "none.lark"}, "grammar: cannot read 'none.lark'"),
        ({}, "constraint: none given; give one of regex, json_schema and grammar"),
        ({"regex": "a", "grammar": "b"}, "constraint: regex and grammar given; give one"),
    ],
)
def test_languages_that_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Constraint(**fields).bind(LETTERS)


def test_a_schema_has_to_be_an_object(tmp_path: Any) -> None:
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match=r"json_schema: '\[1\]' is no object; write"):
        Constraint(json_schema=str(tmp_path / "list.json")).bind(LETTERS)


def test_it_is_bound_to_texts_only() -> None:
    from arlm.domains import ImageDomain

    constraint = Constraint("a+")
    with pytest.raises(UserError, match="constraint: it is for texts, but ImageDomain has no"):
        constraint.bind(ImageDomain(4, 4, 4))
    with pytest.raises(UserError, match="constraint: it has no tokenizer; in Python"):
        generate(network(), [1], processors=[constraint])
    pair = TranslationDomain(LETTERS.tokenizer)
    assert Sampler([constraint]).bind(pair, pair.spec(5)).processors[0] == constraint
    with pytest.raises(UserError, match=r"model\.sampler: constraint ends rows"):
        Sampler([constraint]).bind(LETTERS, LETTERS.spec(5))


def test_without_the_library_one_line_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(UserError, match=r"needs llguidance, of arlm's extra \[constrained\]; `pip"):
        Constraint("a+").bind(LETTERS)


def test_an_unchanged_memory_serves_again() -> None:
    """`observe` changes nothing that it is given, so a strategy can go back to the memory of an earlier position."""
    constraint = Constraint("ab|cd").bind(LETTERS)
    tokens, start = torch.tensor([0, 2]), constraint.init(2, torch.device("cpu"))
    for _ in range(2):
        after = Memory._make(constraint.observe(tokens, Tensor(), start))
        assert after.allowed.nonzero().tolist() == [[0, 1], [1, 3]]
        assert Memory._make(start).allowed.nonzero().tolist() == [[0, 0], [0, 2], [1, 0], [1, 2]]
