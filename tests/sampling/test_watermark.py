"""Watermarks: what marks is what is detected, without a mark the tests are exact, and two of three distort nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from arlm.core import Spec
from arlm.errors import UserError
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import (
    Gumbel,
    GumbelWatermark,
    Watermark,
    draw,
    fixed_point,
    generate,
    row_seeds,
    uniform_noise,
)
from arlm.sampling.noise import gumbel_max, signed
from arlm.sampling.processors import History
from arlm.sampling.processors.green_list import GreenList
from arlm.sampling.processors.synth_id import SynthId, play, tournament
from arlm.sampling.processors.top_k import TopK
from arlm.sampling.watermark import binomial_tail, first_occurrences, gamma_tail, normal_tail

UNLIKELY = 1e-6  # significance of the tests with random numbers
MARKS: list[Any] = [
    GumbelWatermark(key=7),
    GumbelWatermark(key=-1, width=2),
    GreenList(2.0, gamma=0.25, key=7),
    GreenList(4.0, key=7, width=3),
    SynthId(key=7),
    SynthId(key=2**70 + 7, layers=6, width=2),
    SynthId(key=7, weighted=True),
]


def splitmix(number: int) -> int:
    mask = 2**64 - 1
    x = (number + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def bits_of(mark: Watermark, context: list[int], token: int) -> int:
    """The hash with integers of any size."""
    mask = 2**64 - 1
    key = splitmix(splitmix(mark.key & mask) ^ (-mark.width & mask))
    for each in [*context, token]:
        key = splitmix(key ^ each)
    return key


def texts(count: int, length: int, vocab_size: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (count, length), generator=random)


def with_key(mark: Any, key: int) -> Any:
    return type(mark)(**{**mark.__dict__, "key": key})


def chi_square_is_usual(counts: Tensor, probabilities: Tensor) -> bool:
    expected = counts.sum() * probabilities.double()
    statistic = ((counts - expected) ** 2 / expected).sum()
    degrees = torch.tensor((len(counts) - 1) / 2).double()
    return UNLIKELY < float(torch.special.gammaincc(degrees, statistic / 2)) < 1 - UNLIKELY


# The hash


@pytest.mark.parametrize("mark", MARKS, ids=str)
def test_the_hash_is_that_of_the_docstring(mark: Watermark) -> None:
    tokens = texts(1, 12, 50_000)[0]
    row = tokens.tolist()
    expected = [
        signed(bits_of(mark, row[t - mark.width : t], row[t])) for t in range(mark.width, len(row))
    ]
    assert mark.bits_in(tokens).tolist() == expected


def test_the_hash_never_changes() -> None:
    # Recorded when it was introduced: whoever changes these numbers hides the marks of all texts.
    tokens = torch.tensor([3, 1, 4, 1, 5])
    assert GumbelWatermark(key=7, width=2).bits_in(tokens).tolist() == BITS


BITS = [3271949233897253286, -554231401314993100, -2569711119836935561]


def test_a_token_is_green_below_gamma() -> None:
    tokens = texts(1, 300, 9)[0]
    row = tokens.tolist()
    for gamma in (0.001, 0.25, 0.5, 0.75, 1 - 2**-53):
        mark = GreenList(2.0, gamma=gamma, key=3)
        green = [bits_of(mark, [a], b) < gamma * 2**64 for a, b in itertools.pairwise(row)]
        assert mark.scores(tokens).tolist() == green
    many = texts(200, 200, 1000).flatten()
    for gamma in (0.1, 0.5, 0.9):
        share = float(GreenList(1.0, gamma, key=5).scores(many).double().mean())
        assert abs(share - gamma) < 5 * math.sqrt(gamma * (1 - gamma) / len(many))


@pytest.mark.parametrize("mark", MARKS, ids=str)
def test_a_slice_has_the_scores_of_its_own_pairs(mark: Watermark) -> None:
    tokens = texts(1, 40, 30)[0]
    whole = mark.scores(tokens)
    assert len(whole) == 40 - mark.width
    for start, stop in [(0, 10), (7, 40), (13, 25)]:
        assert torch.equal(mark.scores(tokens[start:stop]), whole[start : stop - mark.width])


# What is marked


def history(tokens: Tensor, lengths: list[int], prompts: list[int], vocab_size: int) -> History:
    spec = Spec(vocab_size, (tokens.shape[1],))
    return History(tokens, torch.tensor(lengths), torch.tensor(prompts), spec)


def test_contexts_are_drawn_and_new() -> None:
    """Against a search with lists, in rows of two tokens, which repeat themselves."""
    tokens, lengths = texts(60, 14, 2), [row % 15 for row in range(60)]
    prompts = [row % 5 for row in range(60)]
    prompts = [min(pair) for pair in zip(prompts, lengths, strict=True)]
    given = history(tokens, lengths, prompts, 2)
    mark, seen = GumbelWatermark(key=1, width=2), set()
    context, marked = mark.next_context(given)
    repeated = mark.occurred(context, given)
    for row, (length, prompt) in enumerate(zip(lengths, prompts, strict=True)):
        drawn = tokens[row, prompt:length].tolist()
        assert bool(marked[row]) == (len(drawn) >= 2)
        if len(drawn) < 2:
            continue
        assert context[row].tolist() == drawn[-2:]
        before = [drawn[t - 2 : t] for t in range(2, len(drawn))]
        assert bool(repeated[row]) == (drawn[-2:] in before)
        seen.add(bool(repeated[row]))
    assert seen == {True, False}


def test_green_tokens_gain_delta() -> None:
    mark = GreenList(1.5, gamma=0.4, key=9, width=2)
    given = history(texts(3, 6, 20), [6, 5, 4], [2, 2, 3], 20)
    gain = mark(torch.zeros(3, 20).double(), given)
    for row, length in ((0, 6), (1, 5)):
        context = given.tokens[row, length - 2 : length].tolist()
        green = [bits_of(mark, context, token) < 0.4 * 2**64 for token in range(20)]
        assert gain[row].tolist() == [1.5 * each for each in green]
    assert not gain[2].any()  # one token was drawn


def test_the_tournament_is_that_of_two_tokens() -> None:
    p = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    total = torch.zeros(4).double()
    for bits in itertools.product([0, 1], repeat=4):
        g, winner = torch.tensor(bits), torch.zeros(4).double()
        for a, b in itertools.product(range(4), repeat=2):
            for won in [max((a, b), key=lambda v: bits[v])] if bits[a] != bits[b] else [a, b]:
                winner[won] += p[a] * p[b] / (1 if bits[a] != bits[b] else 2)
        torch.testing.assert_close(tournament(p, g), winner, rtol=1e-14, atol=0)
        assert float(winner.sum()) == pytest.approx(1, abs=1e-15)
        total += tournament(p, g)
    torch.testing.assert_close(total / 16, p, rtol=1e-14, atol=0)


@pytest.mark.parametrize("vocab_size", [2, 3, 8])
def test_expected_bits_of_one_layer(vocab_size: int) -> None:
    p = torch.full((vocab_size,), 1 / vocab_size, dtype=torch.float64)
    every = torch.tensor(list(itertools.product([0, 1], repeat=vocab_size)))
    mean = float((tournament(p, every) * every).sum(-1).mean())
    assert mean == pytest.approx(0.5 + 0.25 * (1 - 1 / vocab_size), abs=1e-14)


def test_layers_take_the_bits_of_the_hash() -> None:
    mark = SynthId(key=4, layers=3, width=2)
    given = history(texts(1, 5, 7), [5], [1], 7)
    logits = torch.randn(1, 7, generator=torch.Generator().manual_seed(0)).double()
    p, context = logits.softmax(-1), given.tokens[0, 3:5].tolist()
    for layer in range(3):
        g = torch.tensor([[bits_of(mark, context, token) >> layer & 1 for token in range(7)]])
        p = tournament(p, g)
    torch.testing.assert_close(mark(logits, given).softmax(-1), p)
    assert mark.scores(torch.tensor([*context, 6])).tolist() == [
        [bits_of(mark, context, 6) >> layer & 1 for layer in range(3)]
    ]


@pytest.mark.parametrize("layers", [1, 9, 10, 11, 30, 64])
@pytest.mark.parametrize("spread", [0.1, 2.5, 8.0])
def test_tournaments_by_groups_are_those_of_each_layer(layers: int, spread: float) -> None:
    random = torch.Generator().manual_seed(layers)
    p = (torch.randn(3, 5000, generator=random).double() * spread).softmax(-1)
    p[0, ::2] = 0
    p[0] /= p[0].sum()
    bits = torch.randint(-(2**63), 2**63 - 1, p.shape, generator=random)
    expected, found = p, p.clone()
    for layer in range(layers):
        expected = tournament(expected, bits >> layer & 1)
    for row, of_row in zip(found.numpy(), bits.numpy(), strict=True):
        play(row, of_row, layers)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    assert bool((found[0, ::2] == 0).all())
    logits, given = (p + 1e-30).log(), history(texts(3, 9, 40), [9] * 3, [1] * 3, 5000)
    mark = SynthId(key=4, layers=layers)
    alone = mark(logits[:1], history(texts(3, 9, 40)[:1], [9], [1], 5000))
    assert torch.equal(mark(logits, given)[:1], alone)


def test_a_tournament_of_few_tokens_is_that_of_all() -> None:
    mark, given = SynthId(key=4), history(texts(4, 9, 40), [9] * 4, [1] * 4, 40)
    logits = torch.randn(4, 40, generator=torch.Generator().manual_seed(0)).double()
    few = logits.masked_fill(logits < logits.topk(4).values[:, -1:], -torch.inf)
    few[0, few[0].argmax()] = -torch.inf  # rows keep different numbers
    few[1] = few[1].masked_fill(few[1] < few[1].max(), -torch.inf)
    bits = [
        [bits_of(mark, row, token) for token in range(40)] for row in given.tokens[:, 5:].tolist()
    ]
    p = few.softmax(-1)
    for layer in range(30):
        p = tournament(p, torch.tensor([[each >> layer & 1 for each in row] for row in bits]))
    torch.testing.assert_close(mark(few, given).softmax(-1), p)


# Distortion


def test_a_token_has_the_distribution_of_the_network_over_keys() -> None:
    logits = torch.randn(6, generator=torch.Generator().manual_seed(0))
    context = torch.tensor([[2, 5, 1, 1]])
    keys = torch.cat([GumbelWatermark(key=key).keys_of(context) for key in range(3000)])
    drawn = gumbel_max(logits.expand(len(keys), -1), keys)
    assert chi_square_is_usual(torch.bincount(drawn, minlength=6), logits.softmax(0))
    given, uniform = history(context, [4], [0], 6), uniform_noise([0], 1000)[0]
    rows = [SynthId(key=key, layers=8)(logits[None], given) for key in range(1000)]
    drawn = draw(torch.cat(rows), uniform)
    assert chi_square_is_usual(torch.bincount(drawn, minlength=6), logits.softmax(0))


@dataclass(frozen=True, eq=False)
class ManyGumbel(GumbelWatermark):
    """A key for each row."""

    def secret(self) -> Tensor:
        return torch.tensor(row_seeds(5, ROWS))


@dataclass(frozen=True, eq=False)
class ManySynthId(SynthId):
    def secret(self) -> Tensor:
        return torch.tensor(row_seeds(5, ROWS))


ROWS = 40_000


@pytest.mark.parametrize(
    "way",
    [{"noise": ManyGumbel(width=1)}, {"processors": [ManySynthId(layers=5, width=1)]}],
    ids=["gumbel", "synth_id"],
)
def test_a_row_has_the_distribution_of_the_network_over_keys(way: dict[str, Any]) -> None:
    """All rows of 5 tokens out of 2, in which most contexts repeat."""
    torch.manual_seed(0)
    net = LSTMLanguageModel(Spec(2, (5,)), width=8, depth=1).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)
        rows = torch.tensor(list(itertools.product([0, 1], repeat=5)))
        exact = net.log_prob(rows).sum(1).exp()
    drawn = generate(net, row_seeds(0, ROWS), **way).tokens
    code = (drawn * 2 ** torch.arange(4, -1, -1)).sum(1)
    assert chi_square_is_usual(code.bincount(minlength=32), exact)


# Without the mark


def test_the_tails_are_exact() -> None:
    for share in (0.25, 0.5):
        every = [sum(bits) for bits in itertools.product([0, 1], repeat=9)]
        for hits in range(10):
            exact = sum(share**g * (1 - share) ** (9 - g) for g in every if g >= hits)
            assert binomial_tail(hits, 9, share) == pytest.approx(exact, rel=1e-12)
    assert binomial_tail(150, 150, 0.5) == pytest.approx(2.0**-150, rel=1e-11)
    for s in (0.0, 0.5, 30.0):
        assert gamma_tail(s, 1) == pytest.approx(math.exp(-s), rel=1e-12)
        assert gamma_tail(s, 3) == pytest.approx(math.exp(-s) * (1 + s + s * s / 2), rel=1e-12)
    large = torch.special.gammaincc(torch.tensor(2000.0).double(), torch.tensor(2100.0).double())
    assert gamma_tail(2100.0, 2000) == pytest.approx(float(large), rel=1e-9)
    assert normal_tail(0) == 0.5
    assert normal_tail(1.959964) == pytest.approx(0.025, rel=1e-6)


def test_first_occurrences_are_in_order() -> None:
    assert first_occurrences(torch.tensor([5, -3, 5, 9, -3, 0])).tolist() == [0, 1, 3, 5]


def test_detectors_count_what_they_say() -> None:
    tokens = torch.tensor([4, 1, 4, 1, 4, 2, 1, 4, 2])
    green = GreenList(1.0, gamma=0.3, key=2)
    pairs = {(4, 1), (1, 4), (4, 2), (2, 1)}
    hits = sum(bits_of(green, [a], b) < 0.3 * 2**64 for a, b in pairs)
    found = green.detect(tokens)
    assert found[:3] == (4, hits, pytest.approx(1.2))
    assert found.z == pytest.approx((hits - 1.2) / math.sqrt(4 * 0.3 * 0.7))
    assert found.p == pytest.approx(binomial_tail(hits, 4, 0.3))


def test_detectors_score_the_first_of_equal_contexts() -> None:
    row = [4, 1, 4, 1, 4, 2, 1, 4, 2]
    first = [2, 3, 6, 7]  # after 41, 14, 42 and 21
    tokens, gumbel = torch.tensor(row), GumbelWatermark(key=2, width=2)
    u = [(bits_of(gumbel, row[t - 2 : t], row[t]) >> 11) * 2.0**-53 for t in first]
    total = sum(-math.log1p(-each) for each in u)
    found = gumbel.detect(tokens)
    assert found[:3] == (4, pytest.approx(total), 4)
    assert found.z == pytest.approx((total - 4) / 2)
    assert found.p == pytest.approx(gamma_tail(total, 4))
    for weighted in (False, True):
        synth_id = SynthId(key=2, layers=3, width=2, weighted=weighted)
        weights = [10, 5.5, 1] if weighted else [1, 1, 1]
        bits = [bits_of(synth_id, row[t - 2 : t], row[t]) for t in first]
        g = [[each >> layer & 1 for layer in range(3)] for each in bits]
        above = sum((b - 0.5) * w for own in g for b, w in zip(own, weights, strict=True))
        found = synth_id.detect(tokens)
        assert found[:3] == (4, pytest.approx(0.5 + above / 4 / sum(weights)), 0.5)
        assert found.z == pytest.approx(above / math.sqrt(4 * sum(w * w for w in weights) / 4))
        exact = binomial_tail(sum(map(sum, g)), 12, 0.5)
        assert found.p == pytest.approx(normal_tail(found.z) if weighted else exact)


@pytest.mark.parametrize("mark", MARKS, ids=str)
def test_without_the_mark_z_has_mean_0_and_deviation_1(mark: Watermark) -> None:
    """In random texts of 8 tokens, of which pairs and contexts repeat."""
    count = 600
    z = torch.tensor(
        [with_key(mark, key).detect(text).z for key, text in enumerate(texts(count, 150, 8))]
    ).double()
    assert abs(float(z.mean())) * math.sqrt(count) < 5
    # Of the squares of normal numbers the deviation is sqrt(2); those of a Gamma vary a little more.
    assert abs(float(z.square().mean()) - 1) < 5 * math.sqrt(2.2 / count)


def test_without_the_mark_s_has_a_gamma_distribution() -> None:
    mark = GumbelWatermark(key=3)
    p = torch.tensor([mark.detect(text).p for text in texts(1500, 40, 1000)]).double().sort().values
    steps = torch.arange(1501) / 1500
    distance = max(float((steps[1:] - p).max()), float((p - steps[:-1]).max()))
    assert distance < math.sqrt(-math.log(UNLIKELY / 2) / 2 / 1500)  # Kolmogorov, Smirnov


# Marked texts


def small(vocab_size: int = 64, length: int = 160) -> TransformerLanguageModel:
    torch.manual_seed(0)
    net = TransformerLanguageModel(Spec(vocab_size, (length,)), width=8, depth=1, heads=2)
    torch.nn.init.normal_(net.head.weight, std=0.7)
    return net.double()


def way(mark: Any) -> dict[str, Any]:
    return {"noise": mark} if isinstance(mark, GumbelWatermark) else {"processors": [mark]}


@pytest.mark.parametrize("mark", MARKS, ids=str)
def test_marked_texts_are_detected(mark: Watermark) -> None:
    prompt = texts(1, 20, 64, seed=4).expand(3, -1)
    rows = generate(small(), row_seeds(0, 3), 160, forced=prompt, **way(mark)).tokens
    assert len(rows.unique(dim=0)) == 3  # after the same prompt
    for row in rows:
        drawn = row[20:]
        assert mark.detect(drawn).p < UNLIKELY
        assert mark.detect(drawn[30:]).p < 1e-4  # a part is enough
        assert with_key(mark, 8).detect(drawn).p > 1e-4
    plain = generate(small(), row_seeds(0, 3), 160, forced=prompt).tokens
    assert all(mark.detect(row[20:]).p > 1e-4 for row in plain)


@pytest.mark.parametrize("mark", [GumbelWatermark(key=7, width=2), GumbelWatermark(key=7)], ids=str)
@pytest.mark.parametrize("processors", [[], [TopK(5)]], ids=["plain", "top_k"])
def test_strategies_draw_the_same_marked_rows(mark: Any, processors: list[Any]) -> None:
    net, seeds = small(9, 30), row_seeds(0, 5)
    forced = texts(5, 30, 9).where(torch.arange(30) < torch.tensor([0, 3, 1, 7, 2])[:, None], -1)
    given: dict[str, Any] = {"processors": processors, "noise": mark}
    together = generate(net, seeds, forced=forced, **given).tokens
    alone = [generate(net, [s], forced=forced[i : i + 1], **given) for i, s in enumerate(seeds)]
    assert torch.equal(together, torch.cat([row.tokens for row in alone]))
    assert torch.equal(together, fixed_point(net, seeds, forced=forced, **given).tokens)
    own = generate(net, seeds, forced=forced, processors=processors, noise=Gumbel()).tokens
    for row, prompt in enumerate([0, 3, 1, 7, 2]):
        first = prompt + mark.width  # the row's own noise until then
        assert torch.equal(own[row, :first], together[row, :first])
    assert not torch.equal(own, together)


# Refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GumbelWatermark(width=0), "gumbel:width: 0 is out of range; choose 1 to 64"),
        (lambda: GreenList(-1.0), "green_list: -1.0"),
        (lambda: GreenList(math.nan), "green_list: nan"),
        (lambda: GreenList(2.0, gamma=1.0), "green_list:gamma: 1.0"),
        (lambda: GreenList(2.0, width=65), "green_list:width: 65"),
        (lambda: SynthId(layers=65), "synth_id:layers: 65"),
        (lambda: SynthId(layers=0).detect(torch.arange(9)), "synth_id:layers: 0"),
        (lambda: SynthId().detect(torch.arange(4)), "text: 4 tokens hold no context of 4"),
        (lambda: GreenList(2.0).detect(torch.arange(0)), "text: 0 tokens"),
    ],
)
def test_bad_values_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
