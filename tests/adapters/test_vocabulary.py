"""`pretrained` for data with other numbers of tokens, and other lengths, than the network was trained with."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from laws import lively

from arlm import checkpoints
from arlm.adapters import Classifier, LogitArithmetic, pretrained
from arlm.checkpoints.specs import check_spec
from arlm.core import Autoregressor, Spec, token_log_prob
from arlm.domains import ClassificationDomain
from arlm.errors import UserError
from arlm.models.bert import BERT
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.ngram import KneserNeyNGram
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.tokenizers import SentenceTokenizer
from datamodules.text_file import TextFile

MODULE = sys.modules["arlm.adapters.pretrained"]  # the package has a function of that name
TEXT = Spec(7, (6,), fingerprint="x" * 64)
PAIRS = replace(TEXT, eos_id=6, context=Spec(9, (5,), pad_id=8, fingerprint="y" * 64))
SMALL = partial(TransformerLanguageModel, width=8, depth=1, heads=2)
NETS = {
    "lstm": (partial(LSTMLanguageModel, width=6, depth=1), TEXT),
    "tied": (partial(LSTMLanguageModel, width=6, depth=1, tied=True), TEXT),
    "learned": (partial(SMALL, positions="learned"), TEXT),
    "start token": (partial(SMALL, tied=True, start_token=1), TEXT),
    "arithmetic": (partial(LogitArithmetic, nets=[SMALL, SMALL], weights=[0.5, 0.5]), TEXT),
    "seq2seq": (partial(LSTMSeq2Seq, width=6, embedding=5), PAIRS),
    "translator": (
        partial(TransformerSeq2Seq, width=8, depth=1, heads=2, positions="learned"),
        PAIRS,
    ),
}


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`pretrained` of a lively network of NETS, in float32, and the network."""

    def make(name: str):
        build, spec = NETS[name]
        net = lively(build(spec)).float()
        loaded = checkpoints.Loaded(net, None, {}, "")
        monkeypatch.setattr(MODULE, "load", lambda path, trusted: loaded)
        return pretrained("runs/base"), net

    return make


def tokens_of(net: Autoregressor) -> tuple[torch.Tensor, torch.Tensor | None]:
    torch.manual_seed(0)
    context = None if net.spec.context is None else torch.randint(8, (5, 4))
    return torch.randint(6, (5, 4)), context


@pytest.mark.parametrize("name", NETS)
def test_new_tokens_leave_the_distribution_over_the_old_ones(factory, name: str) -> None:
    make, net = factory(name)
    given = net.spec.context
    context = given and replace(given, vocab_size=11, pad_id=10, shape=(8,))
    wide = make(replace(net.spec, vocab_size=10, shape=(9,), context=context)).eval()
    assert wide.spec.vocab_size == 10
    tokens, sources = tokens_of(net)
    logits, before = wide(tokens, sources), net(tokens, sources)
    within = token_log_prob(logits[..., :7], tokens)
    assert (within - token_log_prob(before, tokens)).abs().max() < 1e-5
    # At most about 1 / (V + 1) each: the logit of a mean row is the mean of the logits.
    assert logits[..., 7:].softmax(-1).shape == (5, 4, 3)
    new, mean = logits.log_softmax(-1)[..., 7:], logits.log_softmax(-1)[..., :7].mean(-1)
    spread = before.std(-1)
    if name != "arithmetic":
        assert ((new - mean[..., None]).abs() < 2 * spread[..., None] + 0.1).all()
    shorter = make(replace(net.spec, shape=(4,))).eval()
    assert torch.equal(shorter(tokens, sources), before)


def test_tied_weights_stay_tied_and_new_rows_are_the_same_again(factory) -> None:
    make, net = factory("tied")
    spec = replace(TEXT, vocab_size=9, eos_id=7)
    wide, again = make(spec), make(spec)
    assert wide.head.weight is wide.embed.weight
    rows = wide.embed.weight[7:]
    assert torch.equal(rows, again.embed.weight[7:])
    assert not torch.equal(rows[0], rows[1])
    mean, spread = net.embed.weight.mean(0), net.embed.weight.std(0)
    assert ((rows - mean).abs() <= 0.2 * spread + 1e-6).all()
    assert torch.equal(wide.embed.weight[:7], net.embed.weight)


def test_rows_that_the_data_does_not_have_are_cut(factory) -> None:
    make, net = factory("lstm")
    cut = make(replace(TEXT, vocab_size=6))
    tokens = torch.randint(6, (3, 5))
    assert torch.allclose(cut.eval()(tokens), net(tokens)[..., :6], atol=1e-6)


def test_learned_positions_are_repeated(factory) -> None:
    make, net = factory("learned")
    vectors = make(replace(TEXT, shape=(14,))).position_vectors
    old = net.position_vectors
    assert torch.equal(vectors, torch.cat([old, old, old[:2]]))


def test_the_change_is_said_once(factory, capsys: pytest.CaptureFixture) -> None:
    make, _ = factory("lstm")
    make(replace(TEXT, vocab_size=9))
    found = capsys.readouterr().err.splitlines()
    assert len(found) == 1
    assert "note: 'runs/base': 7 -> 9 rows in embed.weight, head.weight, head.bias" in found[0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            replace(TEXT, vocab_size=9, fingerprint="z" * 64),
            "7 of tokenizer xxxxxxxxxxxxxxxx, not 9",
        ),
        (replace(TEXT, vocab_size=9, eos_id=3), "trained with the end token None, but that of"),
        (replace(TEXT, context=Spec(3, (1,), kind="label")), "trained with other contexts"),
    ],
)
def test_other_tokens_are_refused(factory, spec: Spec, message: str) -> None:
    make, _ = factory("lstm")
    with pytest.raises(UserError, match=message):
        make(spec)


def test_another_end_token_is_refused(factory) -> None:
    make, net = factory("seq2seq")
    with pytest.raises(UserError, match="end token 6, but that of the data is 8"):
        make(replace(net.spec, vocab_size=9, eos_id=8))


def test_counted_n_grams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = lively(KneserNeyNGram(TEXT, order=2))
    loaded = checkpoints.Loaded(net, None, {}, "")
    monkeypatch.setattr(MODULE, "load", lambda path, trusted: loaded)
    with pytest.raises(UserError, match="KneserNeyNGram counts n-grams of 7 tokens"):
        pretrained("runs/base")(replace(TEXT, vocab_size=8))


def test_within_an_ensemble_from_files(tmp_path: Path) -> None:
    """A wrapper passes its own spec to the factory."""
    (tmp_path / "text.txt").write_text("the quick brown fox. " * 60)
    data = TextFile(str(tmp_path / "text.txt"), tokenizer="character", length=8)
    net = lively(LSTMLanguageModel(data.spec, width=6, depth=1)).float()
    path = str(checkpoints.save(tmp_path / "base.ckpt", net, data))
    spec = replace(data.spec, vocab_size=data.spec.vocab_size + 2, eos_id=data.spec.vocab_size)
    both = LogitArithmetic(spec, [pretrained(path), pretrained(path)], [0.5, 0.5])
    assert both(torch.randint(5, (2, 8))).shape[-1] == spec.vocab_size
    with pytest.raises(UserError):
        check_spec(both.spec, data.domain)


def test_relative_positions_keep_their_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    def spec(length: int, vocab: int) -> Spec:
        context = replace(TEXT, vocab_size=vocab + 2, shape=(length,), pad_id=vocab + 1)
        return replace(TEXT, vocab_size=vocab, shape=(length,), context=context)

    # As many distances as tokens, which a table of distances is not fitted by.
    net = lively(BERT(spec(6, 11), width=8, depth=1, heads=2)).float()
    loaded = checkpoints.Loaded(net, None, {}, "")
    monkeypatch.setattr(MODULE, "load", lambda path, trusted: loaded)
    make, old = pretrained("runs/base"), net.distance_bias
    assert torch.equal(make(spec(4, 11)).distance_bias, old[:, 2:-2])
    wide = make(spec(9, 17)).eval()
    ends = old[:, :1].expand(2, 3), old[:, -1:].expand(2, 3)
    assert torch.equal(wide.distance_bias, torch.cat([ends[0], old, ends[1]], 1))
    tokens = torch.randint(11, (3, 6))
    found = make(spec(9, 11)).eval()(tokens, tokens)
    assert (found - net(tokens, tokens)).abs().max() < 1e-5


def test_bert_starts_a_classifier_of_longer_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    words = SentenceTokenizer(["a", "b", "c"])
    masked = replace(TEXT, vocab_size=3, shape=(64,), fingerprint=words.fingerprint)
    masked = replace(masked, context=replace(masked, vocab_size=5, pad_id=4))
    net = lively(BERT(masked, width=8, depth=1, heads=2)).float()
    loaded = checkpoints.Loaded(net, None, {}, "")
    monkeypatch.setattr(MODULE, "load", lambda path, trusted: loaded)
    domain = ClassificationDomain(words, ["no", "yes"], "classification")
    spec = Spec(2, (1,), context=domain.context_spec(128), unit="label")
    found = Classifier(spec, pretrained("runs/base"), encoder=True)
    assert found.base.distance_bias.shape == (2, 255)
