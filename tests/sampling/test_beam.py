"""Beam search: greedy at 1, exact when wide, and its early stop loses nothing."""

import itertools
from dataclasses import replace

import laws
import pytest
import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec
from arlm.errors import UserError
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.sampling import Beams, beam_search, fixed_point, generate
from arlm.sampling import beam as module
from arlm.sampling.processors.greedy import Greedy

END = 2
PAIRS = replace(laws.SPECS["pairs"], eos_id=END)
SMALL = {
    LSTMSeq2Seq: {"width": 6, "embedding": 5},
    TransformerSeq2Seq: {"width": 8, "depth": 2, "heads": 2},
    LSTMLanguageModel: {"width": 8},
    TransformerLanguageModel: {"width": 8, "depth": 1, "heads": 2},
}
KINDS = pytest.mark.parametrize("kind", list(SMALL), ids=lambda k: k.__name__)


def build(kind: type[Autoregressor], spec: Spec = PAIRS) -> Autoregressor:
    given = spec if kind.__name__.endswith("Seq2Seq") else replace(spec, context=None)
    return laws.lively(kind(given, **SMALL[kind]))


def every_row(net: Autoregressor, context: Tensor | None, penalty: float) -> list[list[tuple]]:
    """All rows that end, or are full, as (score, tokens, log_prob), best first, for each source."""
    length, count = net.spec.length, 1 if context is None else len(context)
    values = itertools.product(range(net.spec.vocab_size), repeat=length)
    rows = torch.tensor([v for v in values if END not in v or set(v[v.index(END) :]) == {END}])
    found = []
    for i in range(count):
        given = None if context is None else context[i : i + 1].expand(len(rows), -1)
        first = ((rows == END).cumsum(1) - (rows == END).long()) == 0  # up to the first end
        nats = (net.log_prob(rows, given) * first).sum(1)
        scores = nats / torch.tensor([module.length_norm(int(n), penalty) for n in first.sum(1)])
        best = scores.argsort(descending=True)
        found.append([(scores[j].item(), rows[j].tolist(), nats[j].item()) for j in best])
    return found


@KINDS
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_is_exact(kind: type[Autoregressor], penalty: float) -> None:
    net = build(kind)
    context = laws.contexts(net, 5)
    with torch.no_grad():
        expected = every_row(net, context, penalty)
    beams = beam_search(
        net, len(expected), beam=250, n_best=4, length_penalty=penalty, context=context
    )
    for i, rows in enumerate(expected):
        assert beams.tokens[i].tolist() == [tokens for _, tokens, _ in rows[:4]]
        assert beams.score[i].tolist() == pytest.approx([score for score, _, _ in rows[:4]])
        assert beams.log_prob[i].tolist() == pytest.approx([nats for _, _, nats in rows[:4]])


def ending(kind: type[Autoregressor]) -> Autoregressor:
    """A network whose rows end, at many lengths."""
    net = build(kind, replace(PAIRS, vocab_size=7, shape=(9,)))
    net.head.bias.data[END] += 0.5 if kind is LSTMSeq2Seq else 1.0
    return net


@KINDS
@pytest.mark.parametrize("ends", [False, True])
def test_beam_1_is_greedy(kind: type[Autoregressor], ends: bool) -> None:
    spec = replace(PAIRS, vocab_size=7, shape=(9,))
    net = ending(kind) if ends else build(kind, spec)
    context = laws.contexts(net, 8)
    greedy = generate(net, range(8), processors=[Greedy()], context=context)
    beams = beam_search(net, 8, beam=1, context=context)
    assert torch.equal(beams.tokens[:, 0], greedy.tokens)
    assert beams.log_prob[:, 0].tolist() == pytest.approx(greedy.log_prob.sum(1).tolist())


@KINDS
@pytest.mark.parametrize(("penalty", "saves"), [(0.0, True), (0.6, True), (2.0, False)])
def test_stopping_early_loses_nothing(kind, penalty: float, saves: bool, monkeypatch) -> None:
    spec = replace(PAIRS, vocab_size=9, shape=(14,))
    net = build(kind, spec)
    net.head.bias.data[END] += 2.0  # rows end, of many lengths
    context = laws.contexts(net, 8)
    rows: list[int] = []
    advance = net.advance
    net.advance = lambda tokens, state: (rows.append(len(tokens)), advance(tokens, state))[1]

    def run() -> tuple[Beams, int]:
        rows.clear()
        return beam_search(net, 8, beam=8, length_penalty=penalty, context=context), sum(rows)

    early, fewer = run()
    # nothing scores above 0: the rows are searched until `beam` have ended
    monkeypatch.setattr(module, "highest_score", lambda live, *_: torch.full_like(live[:, 0], 1.0))
    late, more = run()
    assert torch.equal(early.tokens, late.tokens)
    assert torch.equal(early.score, late.score)
    # With a penalty of 2 the bound of the longest row is above every score, and nothing stops early.
    assert (fewer < more) == saves


@KINDS
def test_a_row_is_searched_as_if_alone(kind: type[Autoregressor]) -> None:
    net = ending(kind)
    context = laws.contexts(net, 6)
    rows: list[int] = []
    advance = net.advance
    net.advance = lambda tokens, state: (rows.append(len(tokens)), advance(tokens, state))[1]
    together = beam_search(net, 6, beam=3, n_best=3, context=context)
    assert context is None or len(set(rows)) > 1  # some have left before the others
    for i in range(6):
        given = None if context is None else context[i : i + 1]
        alone = beam_search(net, 1, beam=3, n_best=3, context=given)
        assert torch.equal(alone.tokens[0], together.tokens[i])
        assert alone.score[0].tolist() == pytest.approx(together.score[i].tolist())


def test_scores_are_those_of_the_network() -> None:
    net = build(TransformerSeq2Seq, replace(PAIRS, vocab_size=7, shape=(9,)))
    context = laws.contexts(net, 6)
    beams = beam_search(net, 6, beam=4, n_best=4, length_penalty=0.7, context=context)
    rows, ends = beams.tokens.flatten(0, 1), (beams.tokens == END).flatten(0, 1)
    nats = net.log_prob(rows, context.repeat_interleave(4, 0))
    inside = (ends.cumsum(1) - ends.long()) == 0
    assert (nats * inside).sum(1).tolist() == pytest.approx(beams.log_prob.flatten().tolist())
    penalties = [module.length_norm(int(n), 0.7) for n in inside.sum(1)]
    expected = beams.log_prob.flatten() / torch.tensor(penalties)
    assert beams.score.flatten().tolist() == pytest.approx(expected.tolist())
    assert (beams.score.diff(dim=1) <= 0).all()


def test_a_prompt_is_kept_and_does_not_count() -> None:
    net = build(LSTMLanguageModel, replace(PAIRS, shape=(6,)))
    prompt = torch.tensor([[0, 1], [1, 1]])
    beams = beam_search(net, 2, beam=100, length_penalty=0.0, prompt=prompt)
    assert torch.equal(beams.tokens[:, 0, :2], prompt)
    whole = beams.tokens[:, 0]
    ends = whole == END
    inside = (ends.cumsum(1) - ends.long()) == 0
    nats = (net.log_prob(whole) * inside)[:, 2:].sum(1)
    assert nats.tolist() == pytest.approx(beams.log_prob[:, 0].tolist())


@KINDS
def test_padding_is_never_found_nor_drawn(kind: type[Autoregressor]) -> None:
    net = build(kind, replace(PAIRS, vocab_size=5, shape=(9,), pad_id=4))
    net.head.bias.data[4] += 5.0  # the likeliest token by far
    context = laws.contexts(net, 8)
    beams = beam_search(net, 8, beam=4, n_best=4, context=context)
    assert not (beams.tokens == 4).any()
    given = {"processors": [Greedy()], "context": context}
    greedy = generate(net, range(8), **given).tokens
    ended = (greedy == END).cumsum(1) - (greedy == END).long() > 0
    assert torch.equal(greedy == 4, ended)  # padding follows the end only
    alone = beam_search(net, 8, beam=1, context=context).tokens[:, 0]
    assert torch.equal(alone, greedy.masked_fill(ended, END))
    assert torch.equal(fixed_point(net, range(8), **given).tokens, greedy)
    drawn = generate(net, range(8), context=context).tokens
    ended = (drawn == END).cumsum(1) - (drawn == END).long() > 0
    assert torch.equal(drawn == 4, ended)


def rarely_ending(kind: type[Autoregressor]) -> Autoregressor:
    """A network whose rows are ended by their longest lengths."""
    net = build(kind, replace(PAIRS, vocab_size=7, shape=(9,)))
    net.head.bias.data[END] -= 2.0
    return net


LENGTHS = [2, 9, 4, 1, 7, 9]


@KINDS
@pytest.mark.parametrize("beam", [1, 3])
def test_rows_with_longest_lengths_are_searched_as_if_alone(
    kind: type[Autoregressor], beam: int
) -> None:
    net = rarely_ending(kind)
    context = laws.contexts(net, 6)
    given = {"beam": beam, "n_best": beam}
    together = beam_search(net, 6, context=context, lengths=LENGTHS, **given)
    for i, length in enumerate(LENGTHS):
        own = None if context is None else context[i : i + 1]
        alone = beam_search(net, 1, length, context=own, **given)
        assert torch.equal(together.tokens[i, :, :length], alone.tokens[0])
        assert (together.tokens[i, :, length:] == END).all()
        assert together.score[i].tolist() == pytest.approx(alone.score[0].tolist())


@KINDS
def test_rows_with_longest_lengths_are_drawn_as_if_alone(kind: type[Autoregressor]) -> None:
    net = rarely_ending(kind)
    context = laws.contexts(net, 6)
    together = generate(net, range(6), context=context, lengths=LENGTHS)
    for i, length in enumerate(LENGTHS):
        own = None if context is None else context[i : i + 1]
        alone = generate(net, [i], length, context=own)
        assert torch.equal(together.tokens[i, :length], alone.tokens[0])
        assert (together.tokens[i, length:] == END).all()
        assert torch.allclose(together.log_prob[i, :length], alone.log_prob[0])
        assert (together.log_prob[i, length:] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beam": 0}, "beam: 0"),
        ({"beam": 3, "n_best": 4}, "n-best: 4"),
        ({"length_penalty": -1.0}, "length-penalty: -1.0"),
        ({"length": 99}, "length: 99"),
        ({"prompt": torch.zeros(1, 5, dtype=torch.long)}, "prompt: 5"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    net = build(LSTMSeq2Seq)
    with pytest.raises(UserError, match=message):
        beam_search(net, 1, context=laws.contexts(net, 1), **arguments)


@pytest.mark.parametrize("size", [9, 128, 1280, 1299, 5893])
def test_largest(size: int) -> None:
    values = torch.randn(50, size, generator=torch.Generator().manual_seed(size))
    values[0] = -torch.inf
    values[0, -1] = 1.0  # behind the last whole block
    for count in (1, 4, 9):
        expected, ours = values.topk(count), module.largest(values, count)
        assert torch.equal(ours[0], expected.values)
        finite = expected.values.isfinite()
        assert torch.equal(ours[1][finite], expected.indices[finite])
