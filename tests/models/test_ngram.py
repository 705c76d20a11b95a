"""The n-gram model equals a slow implementation with dictionaries, however it was counted."""

from __future__ import annotations

import io
import itertools
import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from arlm.core import Spec
from arlm.data.dataset import generator
from arlm.errors import UserError
from arlm.layers.ngram_table import NGramTable
from arlm.models.ngram import KneserNeyNGram, largest_order
from arlm.models.unigram import Histogram, Unigram
from arlm.states import concatenate
from datamodules.digits import images


class Oracle:
    """Interpolated Kneser-Ney as in the textbook: one dictionary from k-grams to counts for each k."""

    def __init__(self, rows: list[list[int]], order: int, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.counts: list[Counter] = []
        for k in range(1, order + 1):
            longer = grams(rows, min(k + 1, order))
            self.counts.append(longer if k == order else Counter(gram[1:] for gram in set(longer)))

    def p(self, word: int, history: tuple[int, ...]) -> float:
        """p(word | history); history has up to n - 1 tokens."""
        if len(history) >= len(self.counts):
            return self.p(word, history[1:])
        counts = self.counts[len(history)]
        lower = 1 / self.vocab_size if not history else self.p(word, history[1:])
        after = {gram[-1]: n for gram, n in counts.items() if gram[:-1] == history}
        if not after:
            return lower
        once, twice = (sum(n == m for n in counts.values()) for m in (1, 2))
        discount = once / (once + 2 * twice) if once and twice else 0.5
        reserved = discount * len(after) * lower
        return (max(after.get(word, 0) - discount, 0) + reserved) / sum(after.values())

    def log_prob(self, rows: Tensor) -> Tensor:
        """(B, T) int64 -> (B, T) nats."""
        values = [
            [math.log(self.p(row[t], tuple(row[:t])[-len(self.counts) :])) for t in range(len(row))]
            for row in rows.tolist()
        ]
        return torch.tensor(values, dtype=torch.float64)


def grams(rows: list[list[int]], k: int) -> Counter:
    return Counter(tuple(row[i : i + k]) for row in rows for i in range(len(row) - k + 1))


def text(vocab_size: int, rows: int, length: int, seed: int) -> Tensor:
    """Random rows (B, T) in which small tokens are more frequent."""
    return torch.randint(vocab_size, (2, rows, length), generator=generator(seed)).amin(0)


def check_equals_oracle(kind: type[KneserNeyNGram], order: int, vocab_size: int) -> None:
    """Every row of order + 1 tokens, and so every token after every history; 200 of them if there are more."""
    rows = text(vocab_size, 3, 25, seed=10 * order + vocab_size)
    net = kind(Spec(vocab_size, (25,)), order)
    net.count(rows)
    oracle = Oracle(rows.tolist(), order, vocab_size)
    cases = torch.tensor(list(itertools.product(range(vocab_size), repeat=order + 1)))
    if len(cases) > 1024:
        cases = torch.cat([text(vocab_size, 200, order + 1, seed=1), rows[:, : order + 1]])
    expected, logits = oracle.log_prob(cases), net(cases)
    gathered = logits.gather(-1, cases[..., None])[..., 0]
    assert (net.log_prob(cases) - expected).abs().max() < 1e-12
    assert (gathered - expected).abs().max() < 1e-12
    assert (logits.exp().sum(-1) - 1).abs().max() < 1e-12


@pytest.mark.parametrize("vocab_size", [2, 4, 8])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_equals_the_oracle(order: int, vocab_size: int) -> None:
    check_equals_oracle(KneserNeyNGram, order, vocab_size)


# Mutants: the model with one fault.


class FixedDiscount(KneserNeyNGram):
    """The discount does not follow from the counts of counts."""

    def _levels(self):
        return [level._replace(discount=0.75) for level in super()._levels()]


class SharedDiscount(KneserNeyNGram):
    """All levels have the discount of the highest one."""

    def _levels(self):
        levels = super()._levels()
        return [level._replace(discount=levels[-1].discount) for level in levels]


class Occurrences(KneserNeyNGram):
    """Lower orders count occurrences, not distinct left neighbours."""

    def count(self, tokens, scored=None):
        super().count(tokens, scored)
        self.rows = tokens

    def _levels(self):
        size, levels = self.spec.vocab_size, []
        for k in range(1, self.order + 1):
            found = grams(self.rows.tolist(), k)
            codes = {
                sum(w * size**i for i, w in enumerate(reversed(g))): n for g, n in found.items()
            }
            table = torch.tensor(sorted(codes.items()))
            levels.append(NGramTable.of(table[:, 0], table[:, 1], size))
        return levels


class LateHistory(KneserNeyNGram):
    """Histories end one token too early."""

    def _histories(self, line):
        for history in super()._histories(line):
            yield torch.cat([history[:, :1], history[:, :-1]], dim=1)


class PaddedStart(KneserNeyNGram):
    """A row starts after token 0 instead of after nothing."""

    def _line(self, tokens):
        return super()._line(tokens).clamp(min=0)


@pytest.mark.parametrize(
    "mutant",
    [FixedDiscount, SharedDiscount, Occurrences, LateHistory, PaddedStart],
)
def test_oracle_catches(mutant: type[KneserNeyNGram]) -> None:
    with pytest.raises(AssertionError):
        check_equals_oracle(mutant, 3, 8)


def test_by_hand() -> None:
    # a b a b a c: bigrams ab ab ba ba ac; left neighbours of a: {b}, b: {a}, c: {a}
    net = KneserNeyNGram(Spec(3, (6,)), 2)
    net.count(torch.tensor([[0, 1, 0, 1, 0, 2]]))
    discount_1, discount_2 = 0.5, 1 / (1 + 2 * 2)  # no count is 2 below; ac once, ab and ba twice
    unigram = (1 - discount_1) / 3 + discount_1 * 3 / 3 / 3
    expected = (2 - discount_2 + discount_2 * 2 * unigram) / 3  # b after a, seen 2 of 3 times
    assert net.log_prob(torch.tensor([[0, 1]]))[0, 1].exp().item() == pytest.approx(expected)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_overlapping_rows_count_each_ngram_once(order: int) -> None:
    stream = text(4, 1, 200, seed=5)
    whole, pieces = (KneserNeyNGram(Spec(4, (16,)), order) for _ in range(2))
    whole.count(stream)
    for start in reversed(range(0, 200, 13)):  # in any order
        first = max(0, start - 3)
        row = stream[:, first : start + 13]
        pieces.count(row, torch.arange(row.shape[1])[None] >= start - first)
    for name, buffer in whole.named_buffers():
        assert torch.equal(buffer, dict(pieces.named_buffers())[name]), name
    assert torch.equal(whole(stream), pieces(stream))


def test_rows_of_a_batch_are_counted_apart() -> None:
    rows = text(3, 4, 6, seed=6)
    net = KneserNeyNGram(Spec(3, (6,)), 3)
    net.count(rows)
    assert net.counts.sum() == 4 * (6 - 2)


@pytest.mark.parametrize(
    "build",
    [lambda spec: KneserNeyNGram(spec, 4), Unigram, Histogram],
    ids=["KneserNeyNGram", "Unigram", "Histogram"],
)
def test_without_counts_it_is_uniform_and_has_no_parameters(build: Callable) -> None:
    net = build(Spec(5, (7,)))
    assert not list(net.parameters())
    assert (net(text(5, 2, 7, seed=1)) + math.log(5)).abs().max() < 1e-15
    assert (net.start(2, 7)[0] + math.log(5)).abs().max() < 1e-15


def test_add_one_smoothing_by_hand() -> None:
    net = Unigram(Spec(3, (4,)))
    net.count(torch.tensor([[0, 0, 1, 2]]), torch.tensor([[True, True, True, False]]))
    assert net(torch.zeros(1, 1).long()).exp().tolist() == [[pytest.approx([3 / 6, 2 / 6, 1 / 6])]]


def test_histogram_of_all_digits_is_2_413_bits() -> None:
    rows = images().flatten(1).long()
    net = Histogram(Spec(17, (8, 8, 1)), smoothing=1e-9)
    for part in rows.split(100):
        net.count(part)
    assert -net.log_prob(rows).mean().item() / math.log(2) == pytest.approx(2.4127, abs=5e-4)


@pytest.mark.parametrize("kind", [KneserNeyNGram, Unigram])
def test_chunks_are_scored_as_the_whole(kind: type) -> None:
    rows = text(4, 3, 30, seed=2)
    net = kind(Spec(4, (30,)))
    net.count(text(4, 3, 30, seed=3))
    state, parts = None, []
    for chunk in rows.split([1, 2, 20, 7], dim=1):
        scores, state = net.score_chunk(chunk, state)
        parts.append(scores.log_prob)
    assert (torch.cat(parts, dim=1) - net.log_prob(rows)).abs().max() < 1e-12


def test_a_file_gives_the_buffers_their_sizes() -> None:
    net, other = (KneserNeyNGram(Spec(4, (9,)), 3) for _ in range(2))
    net.count(text(4, 5, 9, seed=4))
    other.count(text(4, 50, 9, seed=5))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    other.log_prob(text(4, 1, 9, seed=6))  # its tables are built before the file is read
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    rows = text(4, 5, 9, seed=7)
    assert torch.equal(other.log_prob(rows), net.log_prob(rows))
    net.count(text(4, 5, 9, seed=8))
    other.count(text(4, 5, 9, seed=8))
    assert torch.equal(other.log_prob(rows), net.log_prob(rows))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("grams_3", [3, 1]),
        ("grams_3", [1, 64]),
        ("grams_2", [-1, 1]),
        ("grams_2", [[1, 2]]),
        ("counts", [0, 1]),
        ("counts", [1]),
    ],
)
def test_tables_that_no_counting_made_are_refused(name: str, value: list) -> None:
    weights = {"grams_2": [1, 2], "grams_3": [5, 6], "counts": [1, 1]} | {name: value}
    net = KneserNeyNGram(Spec(4, (9,)), 3)
    with pytest.raises(RuntimeError, match="is no table of n-grams"):
        net.load_state_dict({key: torch.tensor(part) for key, part in weights.items()})


@pytest.mark.parametrize("order", [0, -1, 8, 10**9])
def test_an_order_that_does_not_fit_is_refused(order: int) -> None:
    assert 256 ** largest_order(256) < 2**63 <= 256 ** (largest_order(256) + 1)
    with pytest.raises(
        UserError, match=rf"^model\.net\.order: {order} is out of range; choose 1 to 7"
    ):
        KneserNeyNGram(Spec(256, (9,)), order)


@pytest.mark.parametrize("smoothing", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("kind", [Unigram, Histogram])
def test_a_smoothing_that_gives_no_distribution_is_refused(kind: type, smoothing: float) -> None:
    with pytest.raises(UserError, match=r"^model\.net\.smoothing: "):
        kind(Spec(3, (4,)), smoothing)


def test_states_of_rows_at_different_positions() -> None:
    net = KneserNeyNGram(Spec(4, (9,)), 3)
    net.count(text(4, 30, 9, seed=4))
    rows, lengths = text(4, 3, 8, seed=5), torch.tensor([0, 8, 3])
    expected = net(torch.cat([rows, rows[:, :1]], dim=1))
    beyond = torch.arange(8) >= lengths[:, None]
    logits, state = net.advance(rows.masked_fill(beyond, 10**6), net.start(3, 9)[1], lengths)
    assert torch.equal(logits[~beyond], expected[:, 1:][~beyond])
    state = concatenate([state[torch.tensor([2])], state[:1]])
    logits, _ = net.advance(rows[[2, 0], 3:4], state)
    alone = [rows[2:3, :4], rows[0:1, 3:4]]
    for i, row in enumerate(alone):
        assert torch.equal(logits[i, 0], net(torch.cat([row, row[:, :1]], dim=1))[0, -1])
