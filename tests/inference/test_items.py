"""Single objects are scored as evaluation scores them: windows, carried state, prefixes, ranks."""

from __future__ import annotations

import tracemalloc

import pytest
import torch

from arlm.core import Spec
from arlm.data.corpus import Corpus
from arlm.data.dataset import Rows
from arlm.data.windows import TextWindows
from arlm.domains import TextDomain, TranslationDomain
from arlm.errors import UserError
from arlm.inference.items import Item, figures_of, score_items, sum_items, windows
from arlm.inference.scorer import score_split
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.rnn import GRULanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.tokenizers import ByteTokenizer, CharacterTokenizer

VOCABULARY = 256


def transformer(length: int) -> TransformerLanguageModel:
    torch.manual_seed(0)
    net = TransformerLanguageModel(Spec(VOCABULARY, (length,)), width=8, depth=1, heads=2)
    return net.double().eval()


def text(length: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("length", [1, 5, 8, 9, 12, 13, 40])
@pytest.mark.parametrize("stride", [None, 3, 8])
def test_a_long_text_is_scored_in_the_windows_of_evaluation(length: int, stride: int) -> None:
    net, tokens = transformer(8), text(length)
    (scored,) = score_items(net, [Item("x", tokens)], stride=stride)
    cut = list(windows(length, 8, stride or 4))
    assert len(cut) == max(1, -(-(length - 8) // (stride or 4)) + 1)
    if length < 8:
        expected = -net.log_prob(tokens[None])[0]
    else:
        corpus = Corpus(tokens, torch.zeros(1, dtype=torch.long).numpy())
        data = TextWindows(corpus, TextDomain(ByteTokenizer()), 8, stride or 4)
        assert len(data) == len(cut)
        expected = score_split(net, data, [Rows(0, torch.arange(len(data)))]).nats
    assert torch.allclose(scored.nats, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 8, 9, 33])
def test_a_network_with_state_reads_a_long_text_in_one_pass(length: int) -> None:
    torch.manual_seed(0)
    net = GRULanguageModel(Spec(VOCABULARY, (8,)), width=8).double().eval()
    tokens = text(length)
    (scored,) = score_items(net, [Item("x", tokens)])
    assert torch.allclose(scored.nats, -net.log_prob(tokens[None])[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("given", [1, 4, 7])
def test_a_prefix_is_read_and_not_scored(given: int) -> None:
    net, tokens = transformer(8), text(8)
    whole, prefix, rest = score_items(
        net, [Item("all", tokens), Item("prefix", tokens[:given]), Item("rest", tokens, given)]
    )
    assert len(rest.nats) == len(rest.tokens) == 8 - given
    assert float(rest.nats.sum()) == pytest.approx(float(whole.nats.sum() - prefix.nats.sum()))
    long = text(40)
    (scored,) = score_items(net, [Item("x", long, 21)])
    (complete,) = score_items(net, [Item("x", long)])
    assert torch.equal(scored.nats, complete.nats[21:])


def test_ranks_and_alternatives_are_those_of_the_distribution() -> None:
    net, tokens = transformer(8), text(8)
    (scored,) = score_items(net, [Item("x", tokens)], top=3)
    log_prob = net(tokens[None])[0].log_softmax(-1)
    for t, token in enumerate(tokens.tolist()):
        order = log_prob[t].argsort(descending=True)
        assert int(scored.ranks[t]) == 1 + order.tolist().index(token)
        assert scored.top[t].tolist() == order[:3].tolist()
        assert torch.allclose(-scored.top_nats[t], log_prob[t, order[:3]])
        assert float(scored.nats[t]) == pytest.approx(-log_prob[t, token].item())


def test_pairs_do_not_depend_on_their_batch() -> None:
    torch.manual_seed(0)
    domain = TranslationDomain(CharacterTokenizer("abcdef"))
    net = LSTMSeq2Seq(domain.spec(16), "general", width=8, embedding=6).double().eval()
    pairs = [("ab", "cdefab"), ("abcdefabc", "f"), ("c", "defa")]
    items = [Item(t, domain.encode(t), context=domain.encode_source(s)) for s, t in pairs]
    together = score_items(net, items)
    for item, scored in zip(items, together, strict=True):
        (alone,) = score_items(net, [item])
        assert scored.item is item
        assert torch.allclose(scored.nats, alone.nats, rtol=0, atol=1e-12)
        assert item.context is not None
        expected = -net.log_prob(item.tokens[None], item.context[None])[0]
        assert torch.allclose(scored.nats, expected, rtol=0, atol=1e-12)
    total = figures_of(together, domain)
    assert total["nats"] == pytest.approx(sum(float(one.nats.sum()) for one in together))
    assert total["bytes"] == 6 + 1 + 4 + 3  # and a newline for each end
    assert total["bits_per_byte"] == pytest.approx(total["nats"] / 14 / 0.69314718056)


@pytest.mark.parametrize("kind", ["windows", "state"])
def test_sums_are_those_of_the_tokens_and_take_no_object_for_each(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = transformer(8)
    if kind == "state":
        net = GRULanguageModel(Spec(VOCABULARY, (8,)), width=8).double().eval()
    domain = TextDomain(ByteTokenizer())
    items = [Item("a", text(45), 5), Item("b", text(7)), Item("c", text(8))]
    scored = score_items(net, items)
    for one, sums in zip(scored, sum_items(net, items, domain), strict=True):
        expected = figures_of([one], domain)
        assert sums.figures(domain) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr("arlm.inference.items.BATCH_LOGITS", 2**17)
    monkeypatch.setattr("arlm.inference.items.CHUNK", 2**7)
    peaks = []
    for length in (10_000, 40_000):
        tracemalloc.start()
        sum_items(net, [Item("x", text(length))], domain)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Bytes of Python's objects, of which each window had several.
    assert peaks[1] - peaks[0] < 30_000


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(UserError, match=r"empty\.txt: it holds no tokens to score"):
        score_items(transformer(8), [Item("empty.txt", text(0))])
    with pytest.raises(UserError, match="x: it holds no tokens"):
        score_items(transformer(8), [Item("x", text(3), 3)])


def test_no_items_have_no_scores() -> None:
    assert score_items(transformer(8), []) == []
