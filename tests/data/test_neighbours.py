"""Pairs of neighbours for word vectors."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from arlm.data.dataset import Rows
from arlm.errors import UserError
from arlm.models.skipgram import SkipGram
from arlm.reports.neighbour_view import nearest
from datamodules.neighbours import Neighbours
from datamodules.text_file import TextFile

TEXT = "abcabdabcacbdcab" * 20


@pytest.fixture
def text(tmp_path: Path) -> TextFile:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return TextFile(str(path), tokenizer="character", held_out=0.4, length=8)


def pairs(batch) -> list[tuple[int, int]]:
    assert batch.scored.all()
    return list(zip(batch.context[:, 0].tolist(), batch.tokens[:, 0].tolist(), strict=True))


@pytest.mark.parametrize("window", [1, 3])
def test_evaluation_has_every_pair_within_the_window_once(text: TextFile, window: int) -> None:
    data = Neighbours(text, window=window, batch_size=7)
    found: Counter[tuple[int, int]] = Counter()
    positions = []
    loader = data.loader("val")
    for rows in loader.order:
        found.update(pairs(loader.dataset[rows]))
        positions += loader.dataset.positions(rows).flatten().tolist()
    tokens = data.tokens("val").tolist()
    expected = Counter(
        (tokens[i], tokens[j])
        for i in range(len(tokens))
        for j in range(max(0, i - window), min(len(tokens), i + window + 1))
        if i != j
    )
    assert found == expected
    assert len(set(positions)) == len(positions) == sum(expected.values())


def test_training_pairs_are_a_function_of_seed_epoch_and_word(text: TextFile) -> None:
    data = Neighbours(text, window=3, subsample=0.05)
    dataset = data.dataset("train")
    rows = torch.arange(60)
    together = pairs(dataset[Rows(2, rows)])
    apart = [pair for row in rows for pair in pairs(dataset[Rows(2, row[None])])]
    assert together == apart
    assert together != pairs(dataset[Rows(3, rows)])
    everything = Neighbours(text, window=3, subsample=None).dataset("train")
    kept, whole = len(together), len(pairs(everything[Rows(2, rows)]))
    assert 0 < kept < whole
    # A window from 1 to 3 has 2 neighbours on either side on average.
    assert abs(whole / (60 * 4) - 1) < 0.2


def test_vectors_learn_which_words_are_alike(text: TextFile) -> None:
    """c and d stand in like places; so the likelihood falls below that of the words' shares."""
    torch.manual_seed(0)
    data = Neighbours(text, window=2, subsample=None, batch_size=64)
    net = SkipGram(data.spec, width=8)
    optimizer = torch.optim.AdamW(net.parameters(), 0.05)
    dataset = data.dataset("train")
    for epoch in range(60):
        batch = dataset[Rows(epoch, torch.arange(len(dataset)))]
        loss = -net.log_prob(batch.tokens, batch.context).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    counts = batch.tokens.flatten().bincount().double()
    unigram = -(counts / counts.sum() * (counts / counts.sum()).log()).sum()
    assert loss < unigram - 0.1
    found = nearest(net, torch.arange(4), 2)
    assert found.shape == (4, 2)
    assert (found != torch.arange(4)[:, None]).all()


def test_refusals(text: TextFile) -> None:
    with pytest.raises(UserError, match=r"data.window: 0 is out of range; choose 1 to 100"):
        Neighbours(text, window=0)
    with pytest.raises(UserError, match=r"data.subsample: 2 is out of range"):
        Neighbours(text, subsample=2)
    with pytest.raises(UserError, match="SkipGram predicts a neighbour of a word"):
        SkipGram(text.spec)
