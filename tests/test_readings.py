"""Windows and streams: every token once, the right context, the state carried as one long pass would."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arlm.core import Batch, Spec
from arlm.data.continuous import ContinuousText
from arlm.data.corpus import Corpus
from arlm.data.dataset import Rows, TokenDataset
from arlm.data.windows import TextWindows
from arlm.domains import TextDomain
from arlm.errors import UserError
from arlm.inference.scorer import BatchScorer, score_split
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.rnn import GRULanguageModel, LSTMLanguageModel, RNNLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.tokenizers import CharacterTokenizer

LETTERS = TextDomain(CharacterTokenizer("abcdefgh"))
NETS = [
    partial(RNNLanguageModel, width=6, depth=2),
    partial(GRULanguageModel, width=6, depth=2),
    partial(LSTMLanguageModel, width=6, depth=2),
    partial(NeuralNGram, order=4, embedding=4, width=6),
]


def stream(size: int, documents: list[int] | None = None) -> Corpus:
    tokens = torch.randint(8, (size,), generator=torch.Generator().manual_seed(size))
    return Corpus(tokens, None if documents is None else np.array(documents))


def batches(dataset: TokenDataset, epoch: int = 0) -> list[tuple[Rows, Batch]]:
    every = torch.arange(len(dataset)).split(dataset.streams or 3)
    return [(rows := Rows(epoch, chosen), dataset[rows]) for chosen in every]


def times_scored(dataset: TokenDataset, size: int) -> torch.Tensor:
    times = torch.zeros(size, dtype=torch.long)
    for rows, batch in batches(dataset):
        positions = dataset.positions(rows)[batch.scored]
        times += positions.bincount(minlength=size)
        whole = dataset.corpus.whole()
        assert torch.equal(batch.tokens[batch.scored], whole[positions])
    return times


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[int, list[int]]:
    size = draw(st.integers(8, 80))
    inner = draw(st.lists(st.integers(1, size - 1), max_size=4))
    return size, sorted({0, *inner})


@settings(deadline=None)
@given(cut_texts(), st.integers(2, 20), st.integers(1, 20), st.booleans())
def test_windows_score_each_token_once(
    text, length: int, stride: int, separate_documents: bool
) -> None:
    size, documents = text
    length = min(length, size)
    stride = min(stride, length)
    windows = TextWindows(
        stream(size, documents), LETTERS, length, stride, separate_documents=separate_documents
    )
    assert (times_scored(windows, size) == 1).all()
    first = set(documents) if separate_documents else {0}
    for rows, batch in batches(windows):
        for place, scored in zip(windows.positions(rows), batch.scored, strict=True):
            if scored.any() and int(place[0]) not in first:  # context: at least length - stride
                assert scored.nonzero().min() >= min(length - stride, length - 1)


@settings(deadline=None)
@given(cut_texts(), st.integers(2, 9), st.integers(1, 4), st.integers(0, 9), st.booleans())
def test_lanes_score_each_token_once(
    text, length: int, streams: int, overlap: int, separate_documents: bool
) -> None:
    size, documents = text
    length = min(length, size)
    read = ContinuousText(
        stream(size, documents),
        LETTERS,
        length,
        streams,
        overlap,
        separate_documents=separate_documents,
    )
    assert (times_scored(read, size) == 1).all()


@pytest.mark.parametrize("separate_documents", [False, True])
def test_training_lanes_go_on_where_they_stopped(separate_documents: bool) -> None:
    read = ContinuousText(
        stream(200, [0, 70, 90]), LETTERS, 5, 3, seed=4, separate_documents=separate_documents
    )
    before = None
    for epoch in (0, 1):
        for rows, batch in batches(read, epoch):
            positions = read.positions(rows)
            for stream_ in range(3):
                if batch.starts_document[stream_] or not batch.scored[stream_].any():
                    continue
                assert before is not None
                assert positions[stream_, 0] == before[stream_, -1] + 1
            before = positions
    assert not torch.equal(
        read.positions(Rows(0, torch.arange(3))), read.positions(Rows(1, torch.arange(3)))
    )


def test_documents_apart_never_share_a_row() -> None:
    documents = np.array([0, 13, 14, 40])
    for dataset in (
        TextWindows(stream(60, list(documents)), LETTERS, 8, separate_documents=True),
        TextWindows(stream(60, list(documents)), LETTERS, 8, 3, separate_documents=True),
        ContinuousText(stream(60, list(documents)), LETTERS, 8, 2, separate_documents=True),
    ):
        for rows, batch in batches(dataset):
            inside = np.searchsorted(documents, dataset.positions(rows).numpy(), side="right")
            for row, scored in zip(inside, batch.scored.numpy(), strict=True):
                assert len(set(row[scored])) <= 1


@pytest.mark.parametrize("build", NETS, ids=lambda b: b.func.__name__)
def test_carried_state_is_one_long_pass(build) -> None:
    torch.manual_seed(0)
    net = build(Spec(8, (7,))).double().eval()
    text = stream(100)
    whole = net.log_prob(text.whole()[None])[0].detach()
    read = ContinuousText(text, LETTERS, 7, streams=1, overlap=0)
    scores = score_split(net, read, [rows for rows, _ in batches(read)])
    assert torch.equal(scores.tokens, text.whole())
    assert (scores.nats + whole).abs().max() < 1e-12
    assert torch.equal(scores.context, torch.arange(100))


def test_lanes_with_enough_overlap_score_as_one_does() -> None:
    net = NeuralNGram(Spec(8, (7,)), order=4, embedding=4, width=6).double().eval()
    one, four = (ContinuousText(stream(99), LETTERS, 7, n, overlap=3) for n in (1, 4))
    a, b = (score_split(net, read, [rows for rows, _ in batches(read)]) for read in (one, four))
    assert (a.nats - b.nats).abs().max() < 1e-12


def test_documents_apart_are_scored_as_each_alone() -> None:
    net = LSTMLanguageModel(Spec(8, (7,)), width=6).double().eval()
    text = stream(60, [0, 13, 14, 40])
    read = ContinuousText(text, LETTERS, 7, streams=2, overlap=0, separate_documents=True)
    scores = score_split(net, read, [rows for rows, _ in batches(read)])
    for begin, end in ((0, 13), (13, 14), (14, 40), (40, 60)):
        alone = net.log_prob(text.whole()[None, begin:end])[0]
        assert (scores.nats[begin:end] + alone).abs().max() < 1e-12
        assert torch.equal(scores.context[begin:end], torch.arange(end - begin))


def test_a_forgotten_state_is_noticed() -> None:
    class Forgetful(LSTMLanguageModel):
        def score_chunk(self, tokens, chunk_state=None, context=None):
            return super().score_chunk(tokens, None, context)

    with pytest.raises(AssertionError):
        test_carried_state_is_one_long_pass(partial(Forgetful, width=6))


def test_gradients_stop_where_a_batch_begins() -> None:
    net = LSTMLanguageModel(Spec(8, (5,)), width=6)
    reader, read = BatchScorer(net), ContinuousText(stream(100), LETTERS, 5, streams=2)
    for _, batch in batches(read)[:3]:
        net.zero_grad()
        reader(
            batch
        ).log_prob.sum().backward()  # would fail at the second batch if the graph went on
        assert all(p.grad is not None for p in (*net.layers.parameters(), *net.head.parameters()))


def test_a_network_with_a_longest_row_refuses_lanes() -> None:
    net = TransformerLanguageModel(Spec(8, (5,)), width=8, heads=2, depth=1)
    read = ContinuousText(stream(50), LETTERS, 5, streams=2)
    with pytest.raises(UserError, match="choose windows"):
        BatchScorer(net)(read[Rows(0, torch.arange(2))])
