"""Fill in the middle: rows with prefix, suffix and middle, in training only."""

from __future__ import annotations

import json
import math

import laws
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arlm import checkpoints
from arlm.data.corpus import in_memory
from arlm.data.dataset import Rows
from arlm.data.text_module import TextDataModule
from arlm.domains import Domain, InfillingDomain, TextDomain
from arlm.errors import UserError
from arlm.inference.fillings import FillOptions
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.reports.view import view_of
from arlm.tokenizers import ByteTokenizer, CharacterTokenizer
from datamodules.infilling_text import InfillingText, middle


class Letters(TextDataModule):
    """A text of letters; 3,300 tokens in training, 100 in evaluation."""

    def __init__(self, length: int = 16, **options) -> None:
        super().__init__(length=length, batch_size=4, **options)
        self.domain = TextDomain(CharacterTokenizer("abcdefgh"))

    def read(self, split):
        size = 3300 if split == "train" else 100
        letters = torch.randint(8, (size,), generator=torch.Generator().manual_seed(5)).tolist()
        return in_memory(["".join("abcdefgh"[i] for i in letters)], self.domain.tokenizer)


def test_prefix_suffix_middle() -> None:
    domain = InfillingDomain(CharacterTokenizer("abcdefgh"))
    text = domain.encode("abcdefgh")
    row = domain.permuted(text, 3, 5)
    marks = [domain.prefix_id, domain.suffix_id, domain.middle_id, domain.end_id]
    assert marks == [8, 9, 10, 11]
    assert row.tolist() == [8, 0, 1, 2, 9, 5, 6, 7, 10, 3, 4, 11]
    assert domain.decode(row) == "abcfghde"
    assert domain.units(row).sum() == 8
    assert domain.spec(9).eos_id == 11


@given(st.binary(max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_round_trip(text: bytes, first: int, size: int) -> None:
    domain = InfillingDomain(ByteTokenizer())
    tokens = torch.tensor([*text], dtype=torch.long)
    first = min(first, len(tokens))
    row = domain.permuted(tokens, first, min(first + size, len(tokens)))
    assert torch.equal(domain.restored(row), tokens)
    assert len(row) == len(tokens) + 4


def test_a_share_of_the_training_rows_is_permuted() -> None:
    data = InfillingText(Letters(), rate=0.5)
    rows = data.dataset("train")
    chosen = torch.arange(len(rows))
    batch = rows[Rows(3, chosen)]
    plain = rows.rows[Rows(3, chosen)]  # type: ignore[attr-defined]
    moved = batch.tokens[:, 0] == data.domain.prefix_id
    share, sigma = float(moved.double().mean()), 0.5 / math.sqrt(len(rows))
    assert abs(share - 0.5) < 4 * sigma
    assert torch.equal(batch.tokens[~moved], plain.tokens[~moved])
    assert bool(batch.scored[~moved].all())
    for row, scored, text in zip(
        batch.tokens[moved], batch.scored[moved], plain.tokens[moved], strict=True
    ):
        assert torch.equal(data.domain.restored(row), text[:-4])
        added = row >= data.domain.prefix_id
        assert torch.equal(~scored, added & (row != data.domain.end_id))
    again = rows[Rows(3, chosen[5:7])]
    assert torch.equal(again.tokens, batch.tokens[5:7])
    other = rows[Rows(4, chosen)]
    assert not torch.equal(other.tokens[:, 0] == data.domain.prefix_id, moved)
    for rate, expected in ((0.0, False), (1.0, True)):
        batch = InfillingText(Letters(), rate=rate).dataset("train")[Rows(0, chosen)]
        assert bool(((batch.tokens[:, 0] == 8) == expected).all())


def test_places_of_the_middle_are_uniform() -> None:
    numbers = torch.rand(6000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = torch.tensor([middle(n, 3) for n in numbers])
    counts = (found[:, 0] * 4 + found[:, 1]).bincount(minlength=16).view(4, 4)
    expected = 6000 * torch.ones(4, 4).triu(1).mul(2).add(torch.eye(4)) / 16
    inside = expected > 0
    assert int(counts[~inside].sum()) == 0
    statistic = ((counts - expected)[inside] ** 2 / expected[inside]).sum()
    assert statistic < 9 + 4 * math.sqrt(18)


def test_evaluation_is_that_of_the_text() -> None:
    data, text = InfillingText(Letters()), Letters()
    rows = Rows(0, torch.arange(4))
    for ours, theirs in zip(data.dataset("val")[rows], text.dataset("val")[rows], strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    assert data.protocol == text.protocol
    assert data.spec.vocab_size == text.spec.vocab_size + 4


def test_middles_are_the_same_tokens_twice() -> None:
    data = InfillingText(Letters())
    around, before = (list(side) for side in zip(*data.middles("val"), strict=True))
    for one, other in zip(around, before, strict=True):
        assert torch.equal(one.tokens[one.scored], other.tokens[other.scored])
        for row, scored, left in zip(one.tokens, one.scored, other.tokens, strict=True):
            size, end = int(scored.sum()), int((row == data.domain.suffix_id).nonzero()[0])
            assert torch.equal(row[1:end], left[: end - 1])  # the same prefix
            assert int((row == data.domain.middle_id).nonzero()[0]) + size < len(row) + 1


@pytest.mark.parametrize("kind", [LSTMLanguageModel, TransformerLanguageModel])
def test_figures_and_fillings(kind: type) -> None:
    data = InfillingText(Letters(24))
    net = laws.lively(kind(data.spec, width=8, depth=1))
    view = view_of(data.domain)
    figures = view.quality(net, data, "val", 5, 1.0)["middles"]
    nats = tokens = 0.0
    for one, _ in data.middles("val"):
        for row, scored in zip(one.tokens, one.scored, strict=True):
            nats -= float(net.log_prob(row[None])[0][scored].sum().detach())
            tokens += int(scored.sum())
    assert figures["tokens"] == tokens
    assert figures["nats"] == pytest.approx(nats / tokens, rel=1e-9)
    gain = figures["nats_left_only"] - figures["nats"]
    assert figures["gain"] == pytest.approx(gain)
    found = view.fill(net, "abc[MASK]fgh", FillOptions(n=3))
    assert len(found.fillings) == 3
    values = [one.log_prob for one in found.fillings]
    assert values == sorted(values, reverse=True)
    for one in found.fillings:
        text = data.domain.decode(one.tokens)
        assert text.startswith("abc")
        assert text.endswith("fgh")
        prompt = data.domain.prompt(data.domain.encode("abc"), data.domain.encode("fgh"))
        row = torch.cat([prompt, one.gaps[0], torch.tensor([data.domain.end_id])])[:24]
        own = net.log_prob(row[None])[0, len(prompt) :].sum()
        assert own.item() == pytest.approx(one.log_prob, abs=1e-5)
    for text, message in (("a[MASK]b[MASK]", "2 gaps, but the network fills one"), ("a", "no gap")):
        with pytest.raises(UserError, match=message):
            view.fill(net, text, FillOptions())
    with pytest.raises(UserError, match="--order: 'random' given, but the network fills gaps by a"):
        view.fill(net, "a[MASK]b", FillOptions(order="random"))


def test_documents_of_any_length() -> None:
    class Documents(Letters):
        def read(self, split):
            texts = ["abcde" * n for n in (1, 3, 20)] + ["a"] * 3
            return in_memory(texts, self.domain.tokenizer)

    data = InfillingText(Documents(separate_documents=True), rate=1.0)
    rows = data.dataset("train")
    plain = rows.rows  # type: ignore[attr-defined]
    chosen = Rows(0, torch.arange(len(rows)))
    for row, text, inside in zip(
        rows[chosen].tokens, plain[chosen].tokens, plain[chosen].scored, strict=True
    ):
        size = int(inside.sum())
        if size <= 4:
            assert torch.equal(row, text)
        else:
            assert torch.equal(data.domain.restored(row), text[: size - 4])
    assert sum(int(one.scored.sum()) for one, _ in data.middles("val")) > 0


def test_a_checkpoint_describes_it() -> None:
    domain = InfillingDomain(CharacterTokenizer("ab"))
    copy = checkpoints.build(json.loads(json.dumps(checkpoints.describe(domain))), Domain)
    assert copy.spec(9) == domain.spec(9)


def test_bad_options() -> None:
    with pytest.raises(UserError, match=r"data\.rate: 1\.5"):
        InfillingText(Letters(), rate=1.5)
    with pytest.raises(UserError, match=r"data\.text\.length: 4"):
        InfillingText(Letters(4))
