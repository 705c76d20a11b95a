"""Fillings of gaps: exact for one gap, under masked and under causal networks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from laws import lively

from arlm.core import Spec, log_softmax
from arlm.domains.gaps import around_gaps
from arlm.errors import UserError
from arlm.inference.fillings import FillOptions, fill_causal, fill_masked
from arlm.models.bert import BERT
from arlm.models.rnn import LSTMLanguageModel
from arlm.tokenizers import BPETokenizer, CharacterTokenizer

V = 5
ALL = FillOptions(n=1000)


def causal():
    return lively(LSTMLanguageModel(Spec(V, (8,)), width=8, depth=1))


def parts(*lists: list[int]) -> list[torch.Tensor]:
    return [torch.tensor(one, dtype=torch.long) for one in lists]


def test_one_gap_of_a_causal_network_is_the_posterior_of_the_whole_text() -> None:
    net = causal()
    found = fill_causal(net, parts([1, 2], [3, 0, 4]), ALL)
    assert found.how.startswith("exact")
    texts = torch.tensor([[1, 2, w, 3, 0, 4] for w in range(V)])
    joint = net.log_prob(texts).sum(1)
    expected = (joint - joint.logsumexp(0)).detach()
    order = expected.argsort(descending=True).tolist()
    assert [int(one.gaps[0]) for one in found.fillings] == order
    assert [one.log_prob for one in found.fillings] == pytest.approx(expected[order].tolist())
    assert all(
        torch.equal(one.tokens, texts[w]) for one, w in zip(found.fillings, order, strict=True)
    )
    # What follows matters: the next-token distribution is another one.
    ahead = log_softmax(net(texts))[0, 2].detach()
    assert (ahead - expected).abs().max() > 0.01


def test_a_beam_that_keeps_everything_is_exact_for_two_gaps() -> None:
    net = causal()
    found = fill_causal(net, parts([1], [3], [0]), ALL)
    texts = {(a, b): [1, a, 3, b, 0] for a, b in itertools.product(range(V), repeat=2)}
    joint = net.log_prob(torch.tensor(list(texts.values()))).sum(1).detach()
    expected = dict(zip(texts, (joint - joint.logsumexp(0)).tolist(), strict=True))
    gaps = [tuple(int(g) for g in one.gaps) for one in found.fillings]
    assert sorted(gaps) == sorted(texts)
    assert [one.log_prob for one in found.fillings] == pytest.approx([expected[g] for g in gaps])
    assert sum(math.exp(one.log_prob) for one in found.fillings) == pytest.approx(1)
    assert "after the best 1000 texts" in found.how
    few = fill_causal(net, parts([1], [3], [0]), FillOptions(n=3))
    assert "after the best 16 texts" in few.how
    assert len(few.fillings) == 3


def test_special_tokens_fill_no_gap() -> None:
    net = lively(LSTMLanguageModel(Spec(V, (8,), eos_id=4), width=8, depth=1))
    found = fill_causal(net, parts([1, 2], []), ALL)
    assert sorted(int(one.gaps[0]) for one in found.fillings) == [0, 1, 2, 3]


def masked():
    spec = Spec(V, (6,), context=Spec(V + 2, (6,), pad_id=V + 1))
    return lively(BERT(spec, width=8, depth=1, heads=2)), V


def test_one_gap_of_a_masked_network_is_its_distribution() -> None:
    net, mask = masked()
    context = torch.tensor([1, mask, 3, 0])
    found = fill_masked(net, context, torch.tensor([1]), mask, ALL)
    assert found.how.startswith("exact")
    expected = log_softmax(net(context[None], context[None]))[0, 1].detach()
    for one in found.fillings:
        assert one.log_prob == pytest.approx(float(expected[int(one.gaps[0])]))
        assert one.tokens.tolist() == [1, int(one.gaps[0]), 3, 0]
    values = [one.log_prob for one in found.fillings]
    assert values == sorted(values, reverse=True)
    assert len(values) == V


def test_several_gaps_of_a_masked_network_are_drawn() -> None:
    net, mask = masked()
    context, gaps = torch.tensor([mask, 1, mask, mask]), torch.tensor([0, 2])
    found = fill_masked(net, context, gaps, mask, FillOptions(n=4, draws=50))
    assert found.how.startswith("of 50 draws")
    assert len({tuple(one.tokens.tolist()) for one in found.fillings}) == 4
    for one in found.fillings:
        assert int(one.tokens[3]) == mask  # it is no gap, and stays
        assert [int(g) for g in one.gaps] == [int(one.tokens[0]), int(one.tokens[2])]
    again = fill_masked(net, context, gaps, mask, FillOptions(n=4, draws=50))
    assert [a.log_prob for a in again.fillings] == [b.log_prob for b in found.fillings]


def test_many_draws_are_filled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw does not depend on those beside it."""
    net, mask = masked()
    context, gaps = torch.tensor([mask, 1, mask, mask]), torch.tensor([0, 2])
    together = fill_masked(net, context, gaps, mask, FillOptions(n=50, draws=50))
    monkeypatch.setattr("arlm.inference.fillings.ROWS", 16)
    sizes = []
    net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    found = fill_masked(net, context, gaps, mask, FillOptions(n=50, draws=50))
    assert max(sizes) == 16
    assert {tuple(one.tokens.tolist()) for one in found.fillings} == {
        tuple(one.tokens.tolist()) for one in together.fillings
    }
    values = [one.log_prob for one in together.fillings]
    assert [one.log_prob for one in found.fillings] == pytest.approx(values)


def test_texts_that_do_not_fit_and_options_of_others_are_refused() -> None:
    net, mask = masked()
    with pytest.raises(UserError, match="TEXT: it has 7 tokens, but the network takes 6"):
        fill_masked(net, torch.full((7,), mask), torch.tensor([0]), mask, ALL)
    with pytest.raises(UserError, match="--per-pass: 2 given"):
        fill_causal(causal(), parts([1], [2]), FillOptions(per_pass=2))


def test_the_space_before_a_gap_belongs_to_a_token_that_begins_with_it() -> None:
    words = "the cat sat on the mat and the dog ran to the cat " * 40
    tokenizer = BPETokenizer.train([words], vocab_size=300)
    before, after = around_gaps(tokenizer, "the cat [MASK] on the mat")
    assert (tokenizer.decode(before), tokenizer.decode(after)) == ("the cat", " on the mat")
    letters = CharacterTokenizer("abc ")
    assert [letters.decode(p) for p in around_gaps(letters, "a [MASK] c")] == ["a ", " c"]
