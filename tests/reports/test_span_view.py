"""SpanView: gaps written as [MASK], figures of the missing tokens, and windows with their gaps filled."""

from __future__ import annotations

import math

import laws
import pytest
import torch

from arlm.core import Autoregressor, log_softmax
from arlm.data.corpus import in_memory
from arlm.data.dataset import Rows
from arlm.data.text_module import TextDataModule
from arlm.domains import SpanDomain, TextDomain
from arlm.errors import UserError
from arlm.inference.fillings import FillOptions
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.reports.span_view import SpanView
from arlm.reports.view import view_of
from arlm.tokenizers import CharacterTokenizer, WordTokenizer
from datamodules.span_text import SpanText

WORDS = WordTokenizer(
    ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week."]
)


class Letters(TextDataModule):
    """A short text of a few letters."""

    def __init__(self) -> None:
        super().__init__(length=16, batch_size=3)
        self.domain = TextDomain(CharacterTokenizer("abcd "))

    def read(self, split):
        return in_memory(["abcd dcba ab cd " * 9], self.domain.tokenizer)


@pytest.fixture
def data() -> SpanText:
    return SpanText(Letters(), noise=0.3, mean_span=2.0)


@pytest.fixture
def net(data: SpanText) -> Autoregressor:
    return laws.lively(TransformerSeq2Seq(data.spec, width=8, depth=1, heads=2)).float()


def test_a_gap_is_written_as_a_mask() -> None:
    domain = SpanDomain(WORDS)
    view = view_of(domain)
    assert isinstance(view, SpanView)
    pieces = view.source_of("Thank you [MASK] me to [MASK]", "TEXT")
    source = domain.encode_source(pieces)
    assert domain.decode(source) == "Thank you <X> me to <Y>"
    assert view.context_pieces(source)[2:4] == ["<X>", "me"]
    target = domain.encode(view.target_of("for inviting[MASK]your party"))
    assert domain.decode(target) == "<X> for inviting <Y> your party <Z>"
    assert view.pieces(target)[-2:] == ["<Z>", "<end>\n"]
    assert view.pieces(target)[:2] == ["<X>", "for"]
    with pytest.raises(UserError, match=r"line 3: 'Thank you' has no gap; write \[MASK\]"):
        view.source_of("Thank you", "line 3")


def test_figures_are_of_the_missing_tokens(data: SpanText, net: Autoregressor) -> None:
    found = view_of(data.domain).quality(net, data, "val", 5, 1.0)["missing tokens"]
    rows = data.dataset("val")
    nats = right = count = 0
    for i in range(len(rows)):
        batch = rows[Rows(0, torch.tensor([i]))]
        logits = net(batch.tokens, batch.context)[0]
        for t, token in enumerate(batch.tokens[0]):
            if token < 5 and batch.scored[0, t]:
                nats -= log_softmax(logits[t])[token].item()
                right += int(logits[t].argmax() == token)
                count += 1
    assert found["tokens"] == count == 9 * math.floor(0.3 * 16 + 0.5)
    assert found["nats"] == pytest.approx(nats / count, rel=1e-5)
    assert found["accuracy"] == pytest.approx(100 * right / count)
    assert found["low"] < found["nats"] < found["high"]


def test_windows_are_drawn_with_their_gaps_filled(data: SpanText, net: Autoregressor) -> None:
    shown = view_of(data.domain).draw(net, data, "val", 2, beam=2).show()
    assert len(shown.texts) == 2
    source, target, filled = shown.texts[0].splitlines()
    assert source.count("<X>") == target.count("<X>") == 1
    assert target.startswith("= ")
    assert filled.startswith("> ")


def test_gaps_are_filled_with_the_likeliest_spans(data: SpanText, net: Autoregressor) -> None:
    view = view_of(data.domain)
    found = view.fill(net, "ab[MASK]cd [MASK]", FillOptions(n=4))
    source = data.domain.encode_source(["ab", "cd ", ""])
    for one in found.fillings:
        assert len(one.gaps) == 2
        assert torch.equal(
            one.tokens, torch.cat([source[:2], one.gaps[0], source[3:6], one.gaps[1]])
        )
    values = [one.log_prob for one in found.fillings]
    assert values == sorted(values, reverse=True)
    with pytest.raises(UserError, match="it has no gap"):
        view.fill(net, "abcd", FillOptions())
    with pytest.raises(UserError, match="--draws: 3 given, but the network fills gaps by a beam"):
        view.fill(net, "ab[MASK]", FillOptions(draws=3))
    with pytest.raises(UserError, match="it has 31 tokens, but the network takes"):
        view.fill(net, "[MASK]" + "ab" * 15, FillOptions())
