"""Networks of masked text read both sides, learn from chosen tokens alone, and the counts equal a plain oracle."""

from __future__ import annotations

from collections.abc import Callable

import laws
import pytest
import torch
from two_sided_reference import Reference

from arlm.core import Batch, Spec
from arlm.data.dataset import generator
from arlm.errors import UserError
from arlm.layers.context_reader import ContextReader
from arlm.models.bert import BERT
from arlm.models.bilstm import BiLSTM
from arlm.models.two_sided_ngram import TwoSidedNGram
from arlm.sampling import beam_search, contrastive_search, fixed_point, generate
from arlm.training.objectives import Likelihood, MaskedLikelihood

CASES = [case for case in laws.cases() if case.kind.__name__ in laws.MASKED]
READERS = [case for case in CASES if issubclass(case.kind, ContextReader)]


def full_contexts(net) -> torch.Tensor:
    """Contexts (6, S) without padding."""
    spec = net.spec.context
    return torch.randint(spec.pad_id, (6, spec.length), generator=generator(5))


def law_reads_both_sides(build: Callable) -> None:
    """Every position of the context moves the logits of every token, before it and after it."""
    net = build(laws.WIDE)
    tokens, context = laws.rows(net), full_contexts(net)
    before = net(tokens, context)
    for s in range(context.shape[1]):
        changed = context.clone()
        changed[:, s] = (context[:, s] + 1) % net.spec.context.pad_id
        moved = (net(tokens, changed) != before).flatten(2).any(2).any(0).tolist()
        assert all(moved), f"a change of position {s} of the context moves the tokens {moved}"


@pytest.mark.parametrize("case", READERS, ids=str)
def test_networks_read_both_sides(case: laws.Case) -> None:
    law_reads_both_sides(case.build)


class CausalMaskLeftOn(BERT):
    """Positions attend to themselves and to earlier ones only."""

    def encode(self, x, lengths):
        for block in self.encoder:
            attention = block.attention

            def weights(x, keys, bias, attention=attention):
                later = torch.full((x.shape[1],) * 2, -torch.inf, dtype=x.dtype).triu(1)
                q = attention.query(x).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
                return (q @ keys[0].mT + bias + later).softmax(-1)

            attention.weights = weights
        return super().encode(x, lengths)


class OneWay(BiLSTM):
    """The way back does not arrive."""

    def encode(self, x, lengths):
        features = super().encode(x, lengths).clone()
        features[..., features.shape[-1] // 2 :] = 0
        return features


@pytest.mark.parametrize("mutant", [CausalMaskLeftOn, OneWay])
def test_a_network_of_one_side_is_caught(mutant: type) -> None:
    laws.assert_caught(mutant, "masked", law_reads_both_sides)


class ReadsPadding(BERT):
    """Positions attend to padding."""

    def encode(self, x, lengths):
        return super().encode(x, torch.full_like(lengths, x.shape[1]))


class BackFromThePadding(BiLSTM):
    """The way back begins at the padding."""

    def encode(self, x, lengths):
        return super().encode(x, torch.full_like(lengths, x.shape[1]))


@pytest.mark.parametrize("mutant", [ReadsPadding, BackFromThePadding])
def test_padding_that_is_read_is_caught(mutant: type) -> None:
    laws.assert_caught(mutant, "masked", law_padding)


def law_padding(build: Callable) -> None:
    """A row and its context give the same alone and padded to the length of another."""
    net = build(laws.SPECS)
    context = full_contexts(net)[:1]
    tokens = laws.rows(net)[:1]
    for length in range(1, context.shape[1]):
        short = context[:, :length]
        padded = torch.nn.functional.pad(short, (0, 5 - length), value=net.spec.context.pad_id)
        gap = (net(tokens[:, :length], short) - net(tokens, padded)[:, :length]).abs().max()
        assert gap < 1e-12, f"padding moves logits by {gap}"
        if isinstance(net, ContextReader):
            features = net.context_features(short), net.context_features(padded)[:, :length]
            assert (features[0] - features[1]).abs().max() < 1e-12


@pytest.mark.parametrize("case", CASES, ids=str)
def test_padding_changes_nothing(case: laws.Case) -> None:
    law_padding(case.build)


@pytest.mark.parametrize("case", READERS, ids=str)
def test_only_chosen_tokens_have_a_gradient(case: laws.Case) -> None:
    net = case.build()
    tokens, context = laws.rows(net), full_contexts(net)
    scored = torch.rand(tokens.shape, generator=generator(6)) < 0.4
    scored[:, 0] |= ~scored.any(1)
    batch = Batch(tokens, scored, torch.ones(tokens.shape), context)
    seen: list[torch.Tensor] = []

    def keep(module, arguments, output):
        output.retain_grad()
        seen.append(output)

    handle = net.transform.register_forward_hook(keep)
    objective = Likelihood()
    objective.prepare(net)
    objective.loss(net, batch).sum.backward()
    handle.remove()
    (features,) = seen
    touched = (features.grad != 0).any(-1)
    assert torch.equal(touched, scored)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", READERS, ids=str)
def test_logits_of_chosen_tokens_alone_give_the_likelihood(case: laws.Case, weighted: bool) -> None:
    net = case.build()
    tokens, context = laws.rows(net), full_contexts(net)
    scored = torch.rand(tokens.shape, generator=generator(6)) < 0.5
    units = 1 + torch.rand(tokens.shape, generator=generator(7), dtype=torch.double)
    weights = 1 + units.flip(0) if weighted else None
    batch = Batch(tokens, scored, units, context, weights=weights)
    found = []
    for objective in (Likelihood(), MaskedLikelihood()):
        objective.prepare(net)
        net.zero_grad()
        terms = objective.loss(net, batch)
        terms.sum.backward()
        sums = {"sum": terms.sum, "count": terms.count} | dict(terms.figures)
        figures = objective.figures({k: float(v.detach()) for k, v in sums.items()}, "byte")
        found.append((terms, figures, [p.grad.clone() for p in net.parameters()]))
    (one, figures, slopes), (other, more, others) = found
    assert float(one.sum.detach()) == pytest.approx(float(other.sum.detach()), rel=1e-12)
    assert float(one.count) == pytest.approx(float(other.count))
    assert all(figures[name] == pytest.approx(more[name], rel=1e-12) for name in figures)
    assert max(float((a - b).abs().max()) for a, b in zip(slopes, others, strict=True)) < 1e-12
    right = (net(tokens, context).argmax(-1) == tokens)[scored].double().mean()
    assert more["accuracy"] == pytest.approx(float(right))
    if weighted:
        mean = -(net.log_prob(tokens, context) * weights)[scored].sum() / weights[scored].sum()
        assert more["nll"] == pytest.approx(float(mean.detach()), rel=1e-12)


def test_rows_are_not_drawn_token_by_token() -> None:
    net = BERT(laws.SPECS["masked"], width=8, depth=1, heads=2).eval()
    context = torch.zeros(2, 5, dtype=torch.long)
    for draw in (
        lambda: generate(net, [0, 1], context=context),
        lambda: fixed_point(net, [0, 1], context=context),
        lambda: beam_search(net, 2, 5, context=context),
        lambda: contrastive_search(net, context[:, :2], 5, context=context),
    ):
        with pytest.raises(UserError):
            draw()
    # A row of one token has no order: BERT is a classifier then.
    one = BERT(Spec(3, (1,), context=Spec(5, (5,), pad_id=4)), width=8, depth=1, heads=2).eval()
    assert generate(one, [0, 1], context=context).tokens.shape == (2, 1)


def test_contexts_that_do_not_fit_are_refused() -> None:
    net = BERT(laws.SPECS["masked"], width=8, depth=1, heads=2).eval()
    tokens = torch.zeros(1, 5, dtype=torch.long)
    with pytest.raises(UserError, match="context: BERT reads a masked text"):
        net(tokens)
    with pytest.raises(UserError, match="6 tokens do not fit the network, which reads 5"):
        net(tokens, torch.zeros(1, 6, dtype=torch.long))
    with pytest.raises(UserError, match="a row has no token"):
        net(tokens, torch.full((1, 5), 4))
    with pytest.raises(UserError, match="BERT reads a context, which the data does not have"):
        BERT(laws.SPECS["text"])
    with pytest.raises(UserError, match="rows have 5 tokens and contexts 4"):
        BiLSTM(laws.SPECS["pairs"])
    other = Spec(5, (5,), context=Spec(4, (5,), pad_id=3))
    with pytest.raises(UserError, match=r"model\.net\.tied"):
        BERT(other, width=8, heads=2)
    assert BERT(other, width=8, heads=2, tied=False)(tokens, tokens).shape == (1, 5, 5)


@pytest.mark.parametrize("kept", [0.5, 0.2])
@pytest.mark.parametrize("order", [1, 3])
def test_two_sided_counts_equal_the_reference(order: int, kept: float) -> None:
    size = 4
    net = TwoSidedNGram(
        Spec(size, (7,), context=Spec(size + 2, (7,), pad_id=size + 1)), order, kept
    )
    rows = torch.randint(size, (2, 8, 7), generator=generator(1)).amin(0)
    net.count(rows[:3])
    net.count(rows[3:])
    reference = Reference(rows.tolist(), size, kept)
    contexts = torch.randint(size + 1, (20, 7), generator=generator(2))
    contexts[3, 4:] = size + 1
    found = net(torch.zeros_like(contexts), contexts).exp()
    for context, row in zip(contexts.tolist(), found, strict=True):
        line = [None, *(c if c < size else None for c in context), None]
        for t in range(7):
            expected = reference.distribution(line[t], line[t + 1], line[t + 2], order)
            assert row[t].tolist() == pytest.approx(expected, rel=1e-10)


def test_counts_of_windows_that_overlap_are_those_of_the_text() -> None:
    spec = Spec(5, (9,), context=Spec(7, (9,), pad_id=6))
    text = torch.randint(5, (1, 40), generator=generator(1))
    whole, parts = TwoSidedNGram(spec), TwoSidedNGram(spec)
    whole.count(text)
    for start in range(0, 40, 10):
        first = max(0, start - 4)
        row = text[:, first : start + 10]
        parts.count(row, (torch.arange(first, start + 10) >= start)[None])
    assert torch.equal(whole.grams, parts.grams)
    assert torch.equal(whole.counts, parts.counts)


def test_damaged_counts_are_refused() -> None:
    net = TwoSidedNGram(laws.SPECS["masked"])
    net.count(torch.randint(3, (4, 5), generator=generator(0)))
    good = {name: value.clone() for name, value in net.state_dict().items()}
    for name, value in (("grams", good["grams"].flip(0)), ("counts", good["counts"] * 0)):
        with pytest.raises(RuntimeError, match=f"{name} is no table"):
            net.load_state_dict(good | {name: value})
    net.load_state_dict(good)
