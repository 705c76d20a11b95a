"""Span corruption: the lectures' sentence, round trips, uniform compositions, and batches of any text."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arlm import checkpoints
from arlm.data.corpus import in_memory
from arlm.data.corrupted import RowNoise
from arlm.data.dataset import Rows
from arlm.data.spans import composition, span_counts, span_mask
from arlm.data.text_module import TextDataModule
from arlm.domains import Domain, SpanDomain, TextDomain
from arlm.errors import UserError
from arlm.inference.baselines import baselines
from arlm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer, WordTokenizer
from datamodules.span_text import SpanText

SENTENCE = "Thank you for inviting me to your party last week."
WORDS = WordTokenizer(SENTENCE.split())
MISSING = torch.tensor([0, 0, 1, 1, 0, 0, 0, 0, 1, 0]).bool()


def numbers(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    noise = RowNoise(seed, 0, torch.arange(rows))
    return torch.stack([noise.uniform(i, length + 1) for i in range(2)], dim=1)


def test_the_sentence_of_the_paper() -> None:
    domain = SpanDomain(WORDS)
    source, target = domain.corrupted(WORDS.encode(SENTENCE), MISSING)
    assert domain.decode(source) == "Thank you <X> me to your party <Y> week."
    assert domain.decode(target) == "<X> for inviting <Y> last <Z>"
    assert target[-1] == domain.eos_id
    assert domain.filled(source, target) == SENTENCE
    given = ["Thank you ", " me to your party ", " week."]
    assert torch.equal(domain.encode_source(given), source)
    assert torch.equal(domain.encode(["for inviting", "last"]), target)
    # Units: the bytes of the missing words, with the space before each.
    assert domain.units(target).sum() == len(" for inviting last")


def test_the_form_of_seqio_has_no_closing_sentinel() -> None:
    domain = SpanDomain(WORDS, closing=False)
    source, target = domain.corrupted(WORDS.encode(SENTENCE), MISSING)
    assert domain.decode(target) == "<X> for inviting <Y> last"
    assert domain.filled(source, target) == SENTENCE


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.booleans(), st.integers(0, 99))
def test_every_mask_gives_the_text_back(mask: list[bool], closing: bool, seed: int) -> None:
    domain = SpanDomain(ByteTokenizer(), sentinels=25, closing=closing)
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(256, (len(mask),), generator=random)
    source, target = domain.corrupted(tokens, torch.tensor(mask))
    assert torch.equal(domain.restored(source, target), tokens)
    padded = torch.cat([source, torch.full((3,), domain.pad_id)])
    more = torch.cat([target, torch.randint(domain.vocab_size, (4,), generator=random)])
    assert torch.equal(domain.restored(padded, more), tokens)  # padding, and what follows the end
    runs = sum(1 for value, _ in itertools.groupby(mask) if value)
    assert int((source >= domain.first_sentinel).sum()) == runs
    assert int((target >= domain.first_sentinel).sum()) == runs + closing + 1  # the end is above
    assert domain.units(target).sum() == sum(mask)


@given(st.text())
def test_no_text_holds_a_sentinel(text: str) -> None:
    domain = SpanDomain(BPETokenizer.train(["<X> <Y> <extra_id_0> [MASK]"], 300))
    try:
        source = domain.encode_source([text + "<X> <extra_id_0>", " [MASK]"])
    except UserError:
        assert any("\ud800" <= c <= "\udfff" for c in text)
        return
    assert int((source >= domain.first_sentinel).sum()) == 1


def test_the_space_before_a_gap_is_missing_too() -> None:
    tokenizer = BPETokenizer.train(["the cat sat on the mat " * 9], 270)
    domain = SpanDomain(tokenizer)
    whole = domain.encode_source(["the cat sat on the mat"])
    gap = domain.encode_source(["the cat ", " on the mat"])
    target = domain.encode([" sat"])
    assert torch.equal(domain.restored(gap, target), whole)


@pytest.mark.parametrize("closing", [True, False])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 113])
def test_counts_and_places_of_spans(length: int, closing: bool) -> None:
    for noise, mean_span in itertools.product((0.01, 0.15, 0.5, 0.9), (1.0, 3.0, 10.0)):
        missing, spans = span_counts(length, noise, mean_span, closing)
        assert 1 <= spans <= missing
        for given_numbers in numbers(5, length):
            mask = span_mask(given_numbers, length, noise, mean_span, closing)
            assert mask.shape == (length,)
            assert int(mask.sum()) == missing
            runs = [value for value, _ in itertools.groupby(mask.tolist())]
            assert runs.count(True) == spans  # spans never touch
            if not closing and length > 1:
                assert not runs[0]
                assert runs[-1]
    expected = {0.15: 0.15 * length, 0.5: 0.5 * length}
    for noise, count in expected.items():
        assert abs(span_counts(length, noise, 3.0, closing)[0] - count) <= max(0.5, 1 - count)


def chi_square(counts: Counter, ways: int) -> None:
    """Refuse a uniform distribution at 4 sigma of the statistic."""
    total = sum(counts.values())
    assert len(counts) == ways
    statistic = sum((n - total / ways) ** 2 * ways / total for n in counts.values())
    assert statistic < ways - 1 + 4 * (2 * (ways - 1)) ** 0.5


def test_every_composition_is_equally_probable() -> None:
    given_numbers = numbers(2000, 6)
    chi_square(Counter(tuple(composition(n, 6, 3).tolist()) for n, _ in given_numbers), 10)
    # 6 tokens, 3 missing in 2 spans: 2 ways to cut the missing ones, and the texts around them in
    # C(4, 2) ways (outer ones may be empty), or in C(2, 1) ways.
    for closing, ways in ((True, 12), (False, 4)):
        masks = (tuple(span_mask(n, 6, 0.5, 1.5, closing).tolist()) for n in given_numbers)
        chi_square(Counter(masks), ways)


class Lines(TextDataModule):
    """A text of letters; 230 tokens in training, 115 in evaluation."""

    def __init__(self, length: int = 32, **options) -> None:
        super().__init__(length=length, batch_size=2, **options)
        self.domain = TextDomain(CharacterTokenizer("abcdefghij"))

    def read(self, split):
        size = 230 if split == "train" else 115
        letters = torch.randint(10, (size,), generator=torch.Generator().manual_seed(5))
        text = "".join("abcdefghij"[i] for i in letters)
        return in_memory([text], self.domain.tokenizer)


def test_evaluation_has_every_token_of_the_text_once() -> None:
    data = SpanText(Lines(), noise=0.25, mean_span=2.0)
    rows = data.dataset("val")
    batch = rows[Rows(7, torch.arange(len(rows)))]
    texts = [data.domain.restored(*pair) for pair in zip(batch.context, batch.tokens, strict=True)]
    assert torch.equal(torch.cat(texts), data.text.corpus("val").whole().long())
    assert [len(text) for text in texts] == [32, 32, 32, 19]  # nothing overlaps
    again = rows[Rows(3, torch.tensor([2]))]  # the same gaps in every epoch and batch
    assert torch.equal(again.context[0], batch.context[2])
    positions = rows.positions(Rows(0, torch.arange(len(rows))))[batch.scored]
    assert len(positions.unique()) == len(positions)


def test_training_has_other_gaps_in_every_epoch() -> None:
    data = SpanText(Lines(), noise=0.25, mean_span=2.0)
    rows, chosen = data.dataset("train"), torch.arange(3)
    first, again, second = (rows[Rows(epoch, chosen)] for epoch in (0, 0, 1))
    assert torch.equal(first.context, again.context)
    assert first.context.shape == second.context.shape
    assert not torch.equal(first.context, second.context)
    assert bool(first.scored.all())  # whole windows need no padding
    spec = data.spec
    assert (first.tokens.shape[1], first.context.shape[1]) == (spec.length, spec.context.length)


def test_documents_of_any_length() -> None:
    class Documents(Lines):
        def read(self, split):
            texts = ["abcde" * n for n in (1, 3, 20)] + ["a"] * 3
            return in_memory(texts, self.domain.tokenizer)

    for closing in (True, False):
        data = SpanText(Documents(separate_documents=True), closing=closing)
        for split in ("train", "val"):
            rows = data.dataset(split)
            batch = rows[Rows(0, torch.arange(len(rows)))]
            assert batch.tokens.shape[1] <= data.spec.length
            assert batch.context.shape[1] <= data.spec.context.length
            assert bool((batch.context != data.domain.pad_id).any(1).all())


def test_a_checkpoint_describes_domain_and_data() -> None:
    domain = SpanDomain(CharacterTokenizer("ab"), sentinels=4, closing=False)
    copy = checkpoints.build(json.loads(json.dumps(checkpoints.describe(domain))), Domain)
    assert copy.spec(9) == domain.spec(9)
    assert copy.closing is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": 0.0}, "data.noise: 0.0"),
        ({"noise": 1.0}, "data.noise: 1.0"),
        ({"mean_span": 0.5}, "data.mean_span: 0.5"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SpanText(Lines(), **options)


def test_more_gaps_than_sentinels() -> None:
    domain = SpanDomain(WORDS, sentinels=3)
    with pytest.raises(UserError, match="it has 3 gaps, but there are sentinels for 2"):
        domain.encode_source(["Thank", "for", "me", "week."])
    with pytest.raises(UserError, match="it has 5 gaps"):
        domain.corrupted(torch.arange(10), torch.arange(10) % 2 == 0)


def test_simple_models_count_the_targets() -> None:
    data = SpanText(Lines(), noise=0.25, mean_span=2.0)
    simple = baselines(data)
    assert [*simple] == ["uniform", "unigram", "5-gram"]
    counted = data.dataset("train").counted()[0]
    ended = float((counted == data.domain.eos_id).double().mean())
    tokens = torch.full((1, 1), data.domain.eos_id)
    # Kneser-Ney of order 1 is close to the share among the counts.
    assert simple["unigram"].log_prob(tokens).exp().item() == pytest.approx(ended, rel=0.05)
