"""Windows and continuous streams: every token is scored once, with the right context and carried state."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arlm.core import Batch, Spec
from arlm.data.continuous import ContinuousText
from arlm.data.corpus import Corpus
from arlm.data.dataset import Rows, TokenDataset
from arlm.data.folders import Split
from arlm.data.text_module import TextDataModule
from arlm.data.windows import TextWindows
from arlm.domains import TextDomain
from arlm.errors import UserError
from arlm.inference.scorer import BatchScorer, score_split
from arlm.models.neural_ngram import NeuralNGram
from arlm.models.ngram import KneserNeyNGram
from arlm.models.rnn import GRULanguageModel, LSTMLanguageModel, RNNLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.tokenizers import CharacterTokenizer
from datamodules.digits import Digits

LETTERS = TextDomain(CharacterTokenizer("abcdefgh"))
NETS = [
    partial(RNNLanguageModel, width=6, depth=2),
    partial(GRULanguageModel, width=6, depth=2),
    partial(LSTMLanguageModel, width=6, depth=2),
    partial(NeuralNGram, order=4, embedding=4, width=6),
]


def corpus(size: int, documents: list[int] | None = None) -> Corpus:
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
        corpus(size, documents), LETTERS, length, stride, separate_documents=separate_documents
    )
    assert (times_scored(windows, size) == 1).all()
    first = set(documents) if separate_documents else {0}
    for rows, batch in batches(windows):
        for position, scored in zip(windows.positions(rows), batch.scored, strict=True):
            if scored.any() and int(position[0]) not in first:  # context: at least length - stride
                assert scored.nonzero().min() >= min(length - stride, length - 1)


@settings(deadline=None)
@given(cut_texts(), st.integers(2, 9), st.integers(1, 4), st.integers(0, 9), st.booleans())
def test_streams_score_each_token_once(
    text, length: int, streams: int, overlap: int, separate_documents: bool
) -> None:
    size, documents = text
    length = min(length, size)
    dataset = ContinuousText(
        corpus(size, documents),
        LETTERS,
        length,
        streams,
        overlap,
        separate_documents=separate_documents,
    )
    assert (times_scored(dataset, size) == 1).all()


@pytest.mark.parametrize("separate_documents", [False, True])
def test_training_streams_continue_where_they_stopped(separate_documents: bool) -> None:
    dataset = ContinuousText(
        corpus(200, [0, 70, 90]), LETTERS, 5, 3, seed=4, separate_documents=separate_documents
    )
    before = None
    for epoch in (0, 1):
        for rows, batch in batches(dataset, epoch):
            positions = dataset.positions(rows)
            for row in range(3):
                if batch.starts_document[row] or not batch.scored[row].any():
                    continue
                assert before is not None
                assert positions[row, 0] == before[row, -1] + 1
            before = positions
    assert not torch.equal(
        dataset.positions(Rows(0, torch.arange(3))), dataset.positions(Rows(1, torch.arange(3)))
    )


def test_separate_documents_never_share_a_row() -> None:
    documents = np.array([0, 13, 14, 40])
    for dataset in (
        TextWindows(corpus(60, list(documents)), LETTERS, 8, separate_documents=True),
        TextWindows(corpus(60, list(documents)), LETTERS, 8, 3, separate_documents=True),
        ContinuousText(corpus(60, list(documents)), LETTERS, 8, 2, separate_documents=True),
    ):
        for rows, batch in batches(dataset):
            inside = np.searchsorted(documents, dataset.positions(rows).numpy(), side="right")
            for row, scored in zip(inside, batch.scored.numpy(), strict=True):
                assert len(set(row[scored])) <= 1


@pytest.mark.parametrize("build", NETS, ids=lambda b: b.func.__name__)
def test_carried_state_is_one_long_pass(build) -> None:
    torch.manual_seed(0)
    net = build(Spec(8, (7,))).double().eval()
    text = corpus(100)
    whole = net.log_prob(text.whole()[None])[0].detach()
    dataset = ContinuousText(text, LETTERS, 7, streams=1, overlap=0)
    scores = score_split(net, dataset, [rows for rows, _ in batches(dataset)])
    assert torch.equal(scores.tokens, text.whole())
    assert (scores.nats + whole).abs().max() < 1e-12
    assert torch.equal(scores.context, torch.arange(100))


def test_streams_with_enough_overlap_score_as_one_does() -> None:
    net = NeuralNGram(Spec(8, (7,)), order=4, embedding=4, width=6).double().eval()
    one, four = (ContinuousText(corpus(99), LETTERS, 7, n, overlap=3) for n in (1, 4))
    a, b = (
        score_split(net, dataset, [rows for rows, _ in batches(dataset)]) for dataset in (one, four)
    )
    assert (a.nats - b.nats).abs().max() < 1e-12


def test_separate_documents_are_scored_as_each_alone() -> None:
    net = LSTMLanguageModel(Spec(8, (7,)), width=6).double().eval()
    text = corpus(60, [0, 13, 14, 40])
    dataset = ContinuousText(text, LETTERS, 7, streams=2, overlap=0, separate_documents=True)
    scores = score_split(net, dataset, [rows for rows, _ in batches(dataset)])
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
    scorer, dataset = BatchScorer(net), ContinuousText(corpus(100), LETTERS, 5, streams=2)
    for _, batch in batches(dataset)[:3]:
        net.zero_grad()
        # would fail at the second batch if the graph reached into the first
        scorer(batch).log_prob.sum().backward()
        assert all(p.grad is not None for p in (*net.layers.parameters(), *net.head.parameters()))


def test_a_network_that_carries_no_state_refuses_streams() -> None:
    net = TransformerLanguageModel(Spec(8, (5,)), width=8, heads=2, depth=1)
    dataset = ContinuousText(corpus(50), LETTERS, 5, streams=2)
    with pytest.raises(UserError, match="choose windows"):
        BatchScorer(net)(dataset[Rows(0, torch.arange(2))])


@pytest.mark.parametrize("separate", [False, True])
def test_workers_of_a_loader_can_pickle_continuous_text(separate: bool) -> None:
    dataset = ContinuousText(
        corpus(60, [0, 20, 45]), LETTERS, 8, 2, overlap=2, separate_documents=separate
    )
    copy = pickle.loads(pickle.dumps(dataset))
    for (_, ours), (_, theirs) in zip(batches(dataset), batches(copy), strict=True):
        assert torch.equal(ours.tokens, theirs.tokens)
        assert torch.equal(ours.starts_document, theirs.starts_document)


class Letters(TextDataModule):
    """A random text of letters, in one or more documents."""

    def __init__(self, size: int, documents: list[int] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.size, self.documents, self.domain = size, documents, LETTERS

    def read(self, split: Split) -> Corpus:
        return corpus(self.size, self.documents)


@pytest.mark.parametrize("options", [{}, {"batching": "continuous"}, {"separate_documents": True}])
@pytest.mark.parametrize("size", [50, 150_000])
def test_a_single_pass_scores_each_token_once_after_all_that_an_ngram_reads(
    size: int, options: dict
) -> None:
    documents = [0, size // 3, size // 2]
    data = Letters(size, documents, length=20, batch_size=2, **options)
    loader = data.single_pass()
    assert (times_scored(loader.dataset, size) == 1).all()
    counted = [KneserNeyNGram(data.spec, 5) for _ in range(2)]
    for batch in loader:
        counted[0].count(batch.tokens, batch.scored)
    parts = documents if options.get("separate_documents") else [0]
    for first, end in zip(parts, [*parts[1:], size], strict=True):
        counted[1].count(data.corpus("train").whole()[None, first:end])
    for one, other in zip(*(net.buffers() for net in counted), strict=True):
        assert torch.equal(one, other)


def test_a_single_pass_over_images_has_every_row() -> None:
    data = Digits(batch_size=1000)
    assert torch.equal(
        torch.cat([batch.tokens for batch in data.single_pass()]), data.dataset("train").tokens
    )
