"""The exact distribution over rows: equal to hand-computed ones, to the network's, and to what every sampler draws."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import laws
import pytest
import torch
from bigram_table import END, bigram
from processor_cases import NEEDS_END, PROCESSORS, V
from processor_cases import SPEC as CASES
from torch import Tensor

from arlm.core import Autoregressor, Spec
from arlm.errors import UserError
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.ngram import KneserNeyNGram
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import (
    Gumbel,
    NetworkDraft,
    beam_search,
    best_of,
    contrastive_search,
    fixed_point,
    generate,
    row_seeds,
    speculative,
)
from arlm.sampling.enumeration import Enumeration, enumerate_rows
from arlm.sampling.processors import History, LogitsProcessor, MemoryProcessor, parse_processors
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.xtc import Xtc

PAD = 3
TEXT = Spec(4, (4,), pad_id=PAD, eos_id=2)
CHAINS = [
    "",
    "temperature=0.6,top_p=0.8",
    "frequency_penalty=1,presence_penalty=0.5,top_k=2",
    "mirostat=0.9:rate=0.5",
    "top_k=1:keep_end=true",
    "no_repeat_ngram=1:prompt=false",
    "xtc=0.4:threshold=0.2,temperature=0.8",
    "xtc=0.4:threshold=0.1:keep_end=true",
]


def text_network(spec: Spec = TEXT) -> Autoregressor:
    return laws.lively(LSTMLanguageModel(spec, 6, 1))


def by_row(rows: Enumeration) -> dict[tuple[int, ...], tuple[float, float, bool]]:
    """p, q and whether it ended, of each row without its filler."""
    found = {}
    for tokens, length, ended, p, q in zip(
        *(rows.tokens.tolist(), rows.lengths.tolist(), rows.ended.tolist()),
        *(rows.log_prob.exp().tolist(), rows.processed.exp().tolist()),
        strict=True,
    ):
        found[tuple(tokens[:length])] = p, q, ended
    assert len(found) == len(rows.tokens), "each row once"
    return found


def check_frequencies(tokens: Tensor, lengths: Tensor, rows: Enumeration) -> None:
    """Pearson's chi-square of drawn rows at 1e-6, by Wilson and Hilferty's quantile; none of probability 0."""
    law, count = {row: q for row, (_, q, _) in by_row(rows).items()}, len(tokens)
    seen = dict.fromkeys(law, 0)
    for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True):
        seen[tuple(row[:length])] += 1
    assert all(law[row] > 0 for row, times in seen.items() if times)
    pairs = sorted((q * count, seen[row]) for row, q in law.items() if q > 0)
    cells, rest = [], [0.0, 0.0]
    for expected, times in pairs:  # rare rows are counted together
        rest = [rest[0] + expected, rest[1] + times]
        if rest[0] > 5:
            cells.append(rest)
            rest = [0.0, 0.0]
    if cells and rest[0]:
        cells[-1] = [cells[-1][0] + rest[0], cells[-1][1] + rest[1]]
    statistic = sum((times - expected) ** 2 / expected for expected, times in cells)
    freedom = len(cells) - 1
    if freedom < 1:
        assert statistic < 1e-12
        return
    spread = 2 / (9 * freedom)
    assert statistic < freedom * (1 - spread + 4.7534 * math.sqrt(spread)) ** 3


def test_two_tokens_by_hand() -> None:
    """The bigram's rows of two tokens; top-k drops the end, temperature 1/2 squares."""
    plain = by_row(enumerate_rows(bigram(2)))
    assert plain[0, 1] == pytest.approx((0.5 * 0.7, 0.5 * 0.7, False))
    assert plain[1, END] == pytest.approx((0.45 * 0.1, 0.45 * 0.1, True))
    assert plain[(END,)] == pytest.approx((0.05, 0.05, True))
    assert len(plain) == 7
    top = by_row(enumerate_rows(bigram(2), processors=parse_processors("top_k=2")))
    first, second = 0.5 / 0.95, 0.7 / 0.9
    assert top[0, 1] == pytest.approx((0.35, first * second, False))
    assert top[(END,)] == pytest.approx((0.05, 0, True))
    sharp = by_row(enumerate_rows(bigram(2), processors=parse_processors("temperature=0.5")))
    total, after = 0.25 + 0.2025 + 0.0025, 0.04 + 0.49 + 0.01
    assert sharp[0, 0] == pytest.approx((0.1, 0.25 / total * 0.04 / after, False))
    penalty = by_row(enumerate_rows(bigram(2), processors=parse_processors("frequency_penalty=1")))
    e = math.exp(-1)
    assert penalty[0, 0] == pytest.approx((0.1, 0.5 * 0.2 * e / (0.2 * e + 0.8), False))
    xtc = parse_processors("xtc=0.25:threshold=0.45")  # of a and b, b is the less likely
    mixed = by_row(enumerate_rows(bigram(1), processors=xtc))
    assert mixed[(0,)][1] == pytest.approx(0.75 * 0.5)
    assert mixed[(1,)][1] == pytest.approx(0.75 * 0.45 + 0.25 * 0.45 / 0.5)


NETWORKS: dict[str, Any] = {
    "lstm": lambda: text_network(),
    "transformer": lambda: laws.lively(TransformerLanguageModel(TEXT, width=8, depth=1, heads=2)),
    "no end": lambda: text_network(Spec(3, (4,))),
    "ngram": lambda: laws.lively(KneserNeyNGram(Spec(3, (5,), eos_id=2), order=2)),
    "pixels": lambda: laws.lively(PixelCNN(Spec(2, (2, 2, 1)), width=8, depth=1, head_width=8)),
    "seq2seq": lambda: laws.lively(
        LSTMSeq2Seq(replace(laws.SPECS["pairs"], eos_id=2), width=6, embedding=5)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_p_is_the_networks_and_sums_to_1(name: str) -> None:
    net = NETWORKS[name]()
    context = laws.contexts(net, 2)
    context = None if context is None else context[1:]
    rows = enumerate_rows(net, context=context)
    inside = torch.arange(rows.tokens.shape[1]) < rows.lengths[:, None]
    given = None if context is None else context.expand(len(rows.tokens), -1)
    with torch.no_grad():
        expected = (net.log_prob(rows.tokens, given) * inside).sum(1)
    assert (rows.log_prob - expected).abs().max() < 1e-10
    assert (rows.log_prob.diff() <= 0).all()
    assert float(rows.log_prob.exp().sum()) == pytest.approx(1, abs=1e-12)
    assert float(rows.processed.exp().sum()) == pytest.approx(1, abs=1e-12)
    end = net.spec.eos_id
    size, length = net.spec.vocab_size, net.spec.length
    goes_on = size if end is None else size - 1
    ends = 0 if end is None else sum(goes_on**t for t in range(length))
    assert len(by_row(rows)) == goes_on**length + ends
    if end is not None:
        last = rows.tokens.gather(1, rows.lengths[:, None] - 1).squeeze(1)
        assert torch.equal(rows.ended, last == end)


@pytest.mark.parametrize("processor", PROCESSORS, ids=str)
def test_q_is_what_the_sampler_reports_for_every_processor(processor: LogitsProcessor) -> None:
    """The probabilities of all that was drawn, with a prompt, and their sum over all rows."""
    torch.manual_seed(0)
    end = CASES.eos_id if isinstance(processor, NEEDS_END) else None
    net = laws.lively(LSTMLanguageModel(Spec(V, (6,), eos_id=end), width=6, depth=1))
    prompt = torch.tensor([1, 0, 1])
    rows = enumerate_rows(net, processors=[processor], prompt=prompt)
    assert float(rows.processed.exp().sum()) == pytest.approx(1, abs=1e-12)
    law = by_row(rows)
    given = {"processors": [processor], "forced": prompt[None], "processed": True}
    drawn = generate(net, range(40), 6, **given)
    assert drawn.processed_log_prob is not None
    for i, length in enumerate(drawn.lengths.tolist()):
        p, q, ended = law[tuple(drawn.tokens[i, :length].tolist())]
        assert math.log(p) == pytest.approx(float(drawn.log_prob[i, 3:].sum()), abs=1e-9)
        if not isinstance(processor, Xtc):  # its report is of the seed's own numbers
            nats = float(drawn.processed_log_prob[i].sum())
            assert math.log(q) == pytest.approx(nats, abs=1e-9)
        assert ended == (drawn.finish[i] == "end")


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("noise", [None, Gumbel()], ids=["uniform", "gumbel"])
def test_rows_are_drawn_with_these_probabilities(chain: str, noise: Any) -> None:
    net, processors = text_network(), parse_processors(chain)
    rows = enumerate_rows(net, processors=processors)
    given = {} if noise is None else {"noise": noise}
    drawn = generate(net, row_seeds(3, 20_000), processors=processors, **given)
    check_frequencies(drawn.tokens, drawn.lengths, rows)


def test_other_ways_to_draw_have_the_same_distribution() -> None:
    net, chain = text_network(), parse_processors("temperature=0.7,top_k=3")
    rows, seeds = enumerate_rows(net, processors=chain), row_seeds(4, 10_000)
    parallel = fixed_point(net, seeds, processors=chain)
    check_frequencies(parallel.tokens, parallel.lengths, rows)
    torch.manual_seed(1)
    draft = NetworkDraft(LSTMLanguageModel(TEXT, 4, 1).double())
    found = speculative(net, seeds, draft=draft, processors=chain)
    ends = (found.tokens == TEXT.eos_id).long().argmax(1)
    lengths = torch.where((found.tokens == TEXT.eos_id).any(1), ends + 1, 4)
    check_frequencies(found.tokens, lengths, rows)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("scored", [False, True])
def test_best_of_n_has_the_distribution_of_the_best(n: int, scored: bool) -> None:
    """With the default score, and with one that many rows share."""
    net, chain = text_network(), parse_processors("temperature=1.5")
    rows = enumerate_rows(net, processors=chain)
    scores = (rows.tokens == 1).sum(1).double() if scored else None
    law = rows.best_of(n, scores)
    assert float(law.processed.exp().sum()) == pytest.approx(1, abs=1e-12)
    scorer = (lambda row: float((row == 1).sum())) if scored else None
    found = best_of(net, n, 9, 5000, processors=chain, scorer=scorer)
    stops = (found.tokens == TEXT.eos_id).long()
    lengths = torch.where(stops.any(1), stops.argmax(1) + 1, 4)
    check_frequencies(found.tokens, lengths, law)
    if n == 1:
        assert torch.allclose(law.processed.exp(), rows.processed.exp(), atol=1e-14)


def test_best_of_two_by_hand() -> None:
    """Of a (1/2), b (0.45) and the end (0.05), the best of two by likelihood; and ties go to the first draw."""
    rows = enumerate_rows(bigram(1))
    best = [each[1] for each in by_row(rows.best_of(2)).values()]
    assert best == pytest.approx([1 - 0.5**2, 0.5**2 - 0.05**2, 0.05**2])
    assert torch.allclose(rows.best_of(7, torch.zeros(3)).processed, rows.processed)


def test_searches_are_one_row() -> None:
    net = text_network()
    rows = enumerate_rows(net, processors=[Greedy()])
    greedy = beam_search(net, 1, beam=1, length_penalty=0)
    only = rows.only(generate(net, [0], processors=[Greedy()]).tokens[0])
    assert torch.equal(only.processed, rows.processed)
    wide = beam_search(net, 1, beam=200, length_penalty=0)
    plain = enumerate_rows(net)
    assert float(plain.log_prob.where(plain.processed > -torch.inf, -torch.inf).max()) == (
        pytest.approx(float(wide.log_prob[0, 0]))
    )
    drawn = rows.processed == 0
    assert float(rows.log_prob[drawn]) == pytest.approx(float(greedy.log_prob[0, 0]))
    long = text_network(replace(TEXT, shape=(5,)))  # contrastive search reads one token more
    found = contrastive_search(long, 1, 4, top_k=3, penalty=0.5)
    alone = enumerate_rows(long, 4).only(found.tokens[0])
    assert alone.mean_nats() == pytest.approx((-float(found.log_prob.sum()), 0))
    with pytest.raises(UserError, match=r"^row: \[3, 3, 3, 3\] is not among the rows"):
        enumerate_rows(net, least=0.01).only(torch.full((4,), 3))


def test_least_leaves_out_unlikely_rows_and_changes_no_other() -> None:
    net, chain = text_network(), parse_processors("temperature=0.5,top_k=2")
    every = by_row(enumerate_rows(net, processors=chain))
    some = by_row(enumerate_rows(net, processors=chain, least=0.01))
    assert some == {row: law for row, law in every.items() if max(law[:2]) > 0.01}
    assert 3 < len(some) < len(every)


@pytest.mark.parametrize("chain", CHAINS)
def test_the_mean_nats_are_entropy_and_cross_entropy(chain: str) -> None:
    rows = enumerate_rows(bigram(4), processors=parse_processors(chain))
    cross, entropy = rows.mean_nats()
    law = [(p, q) for p, q, _ in by_row(rows).values() if q]
    assert entropy == pytest.approx(-sum(q * math.log(q) for _, q in law), abs=1e-12)
    assert cross - entropy == pytest.approx(sum(q * math.log(q / p) for p, q in law), abs=1e-12)
    assert (cross - entropy < 1e-12) == (chain == "")


@dataclass(frozen=True)
class Words(MemoryProcessor):
    """Rows that are one of the words: it ends them, and asserts that it sees nothing else."""

    words: tuple[tuple[int, ...], ...]

    def init(self, rows: int, device: torch.device) -> Tensor:
        return torch.full((rows, 4), -1, device=device)  # a word, and at least one -1

    def _next(self, memory: Tensor) -> list[set[int]]:
        seen = [tuple(row[: row.index(-1)]) for row in memory.tolist()]
        assert all(any(word[: len(s)] == s for word in self.words) for s in seen)
        return [
            {w[len(s)] for w in self.words if w[: len(s)] == s and len(w) > len(s)} for s in seen
        ]

    def __call__(self, logits: Tensor, history: History, memory: Tensor) -> Tensor:  # type: ignore[override]
        allowed = torch.zeros_like(logits, dtype=torch.bool)
        for i, tokens in enumerate(self._next(memory)):
            allowed[i, list(tokens)] = True
        return logits.masked_fill(~allowed, -torch.inf)

    def observe(self, tokens: Tensor, logits: Tensor, memory: Tensor) -> Tensor:
        column = (memory >= 0).sum(1, keepdim=True)
        return memory.scatter(1, column, tokens[:, None])

    def finished(self, memory: Tensor) -> Tensor:
        return torch.tensor([not tokens for tokens in self._next(memory)])


def test_rows_that_a_processor_ends() -> None:
    """They are not continued, under the network neither, so that p is still a distribution."""
    net = text_network(Spec(3, (3,)))
    rows = enumerate_rows(net, processors=[Words(((0, 1), (0, 2, 2), (1, 1, 0)))])
    law = by_row(rows)
    assert sum(p for p, _, _ in law.values()) == pytest.approx(1, abs=1e-12)
    assert {row for row, (_, q, _) in law.items() if q} == {(0, 1), (0, 2, 2), (1, 1, 0)}
    assert sum(q for _, q, _ in law.values()) == pytest.approx(1, abs=1e-12)
    assert [row for row, (_, _, ended) in law.items() if ended and len(row) < 3] == [(0, 1)]
    assert not [row for row in law if row[:2] == (0, 1) and len(row) == 3]
    drawn = generate(net, range(500), processors=[Words(((0, 1), (0, 2, 2), (1, 1, 0)))])
    assert set(drawn.finish) == {"constraint"}
    check_frequencies(drawn.tokens, drawn.lengths, rows)


@dataclass(frozen=True)
class Dice(LogitsProcessor):
    """Draws, and does not say as what it acts."""

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        return logits.masked_fill((history.uniform(5) < 0.5)[:, None], 0.0)


def test_the_network_goes_on_where_all_that_is_drawn_has_ended() -> None:
    end = Spec(4, (3,), eos_id=3)
    for after in ("synth_id=1", "typical=0.5", "mirostat=1"):
        law = by_row(
            enumerate_rows(
                text_network(end), processors=parse_processors(f"forced_tokens=[3],{after}")
            )
        )
        assert {row for row, (_, q, _) in law.items() if q} == {(3,)}
        assert sum(p for p, _, _ in law.values()) == pytest.approx(1, abs=1e-12)


def test_what_cannot_be_enumerated_is_refused_in_one_line() -> None:
    net = text_network()
    large = LSTMLanguageModel(Spec(1000, (9,)), 4, 1)
    for build, message in [
        (lambda: enumerate_rows(NETWORKS["transformer"](), 9), "length: 9 tokens do not fit"),
        (
            lambda: enumerate_rows(large),
            "length: there are 1,000,000 beginnings of 2 tokens, and 1,000 tokens",
        ),
        (
            lambda: enumerate_rows(net, prompt=torch.zeros(4).long()),
            "prompt: 4 tokens leave nothing",
        ),
        (lambda: enumerate_rows(net, least=1.0), "least: 1.0 is out of range"),
        (lambda: enumerate_rows(net).best_of(0), "n: 0 is out of range"),
        (
            lambda: of(net, "bad_words=[[0],[1],[2]]"),
            "bad_words: it masks all tokens that were left",
        ),
        (lambda: of(net, "xtc=0.5,mirostat=1"), "xtc: it draws random numbers, over which"),
        (lambda: of(net, "xtc=0.5:keep_end=true,mirostat=1"), "xtc: it draws random numbers"),
        (
            lambda: enumerate_rows(net, processors=[Dice()]),
            "processors: one draws random numbers, .*; define its `outcomes`, or omit it$",
        ),
    ]:
        with pytest.raises(UserError, match=f"^{message}"):
            build()
    assert of(net, "xtc=1,mirostat=1").processed.exp().sum() == pytest.approx(1)  # no chance


def of(net: Autoregressor, chain: str) -> Enumeration:
    return enumerate_rows(net, processors=parse_processors(chain))


def test_every_row_is_listed_for_a_product() -> None:
    rows = enumerate_rows(text_network(Spec(3, (3,))))
    assert sorted(rows.tokens.tolist()) == [
        list(each) for each in itertools.product(range(3), repeat=3)
    ]
