"""Captions shown with their pictures: words, heat maps, pairs to score."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from arlm.domains import CaptionDomain
from arlm.errors import UserError
from arlm.inference.translator import Translation
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.reports.caption_map import heated, words_of
from arlm.reports.view import view_of
from arlm.tokenizers import CharacterTokenizer, WordTokenizer

DOMAIN = CaptionDomain(WordTokenizer(["a", "seven"]), levels=4, height=4, width=6, patch=2)


class Looks(LSTMSeq2Seq):
    """A network whose attention is set from outside."""

    seen: Tensor

    def attention_weights(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self.seen


def network(kind: type[Any] = Looks, attention: str = "general") -> Any:
    torch.manual_seed(0)
    return kind(DOMAIN.spec(8), attention, width=8, embedding=6).eval()


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two pictures of the domain's size, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        Image.fromarray(np.full((4, 6), 100 * number, np.uint8)).save(f"{number}.png")
    return ["1.png", "2.png"]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["a", " bold", " 7"], [("a", [0]), ("bold", [1]), ("7", [2])]),
        (list("a 7"), [("a", [0]), ("7", [1, 2])]),
        (["a b", "old ", "7"], [("a bold", [0, 1]), ("7", [2])]),
        ([], []),
    ],
)
def test_words_have_their_tokens(pieces: list[str], words: list) -> None:
    assert words_of(pieces) == words


def test_the_strongest_weight_is_hot_and_none_leaves_the_dimmed_picture() -> None:
    picture = np.full((4, 6, 1), 200, np.uint8)
    weights = np.array([[0.0, 0.5, 0.0], [0.0, 0.0, 0.25]])
    shown = heated(picture, weights)
    assert shown.shape == (4, 6, 3)
    dimmed = shown[0, 0]
    assert np.ptp(dimmed) == 0
    assert 0 < dimmed[0] < 200 / 255
    assert (shown[2:, :4] == dimmed).all()
    hot = shown[:2, 2:4].reshape(-1, 3)
    assert (hot == hot[0]).all()
    assert hot[0, 0] > 0.9  # a bright yellow
    assert hot[0, 2] < hot[0, 0]
    assert not (shown[2:, 4:] == dimmed).all()


def test_the_attention_of_each_word_is_drawn_over_its_picture(pictures: list[str]) -> None:
    """A word of several tokens shows their mean; the end token is not shown."""
    view = view_of(DOMAIN)
    net = network()
    source = DOMAIN.encode_source(DOMAIN.read_source(Path("1.png"), "FILE"))
    tokens = DOMAIN.encode("a seven")
    net.seen = torch.eye(6)[None, [0, 5, 3]]
    found = [(source, Translation("a seven", tokens, 0.0, 0.0))]
    drawn = view.attention_map(net, found)
    assert drawn is not None
    shown = np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(int)
    hot = shown[..., 0] - shown[..., 2] > 60
    columns = np.flatnonzero(hot.any(0))
    wide = shown.shape[1] / 3  # the picture, "a", "seven"
    first, second = columns[columns < 2 * wide], columns[columns >= 2 * wide]
    rows = [np.flatnonzero(hot[:, part].any(1)) for part in (first, second)]
    assert first.min() > wide  # nothing is hot in the picture itself
    assert rows[0].max() <= rows[1].min()  # upper left for "a", lower right for "seven"
    assert first.max() - wide < second.min() - 2 * wide
    assert view.attention_map(network(LSTMSeq2Seq, "none"), found) is None


def test_characters_make_words_too(pictures: list[str]) -> None:
    domain = CaptionDomain(CharacterTokenizer("ab "), levels=4, height=4, width=6)
    net = LSTMSeq2Seq(domain.spec(9), "general", width=8, embedding=6).eval()
    source = domain.encode_source(domain.read_source(Path("1.png"), "FILE"))
    found = [(source, Translation("a bb", domain.encode("a bb"), 0.0, 0.0))]
    drawn = view_of(domain).attention_map(net, found)
    assert drawn is not None
    width, height = Image.open(io.BytesIO(drawn)).size
    assert 1.5 < width / height < 3  # three panels side by side: the picture and two words


def test_pairs_to_score(pictures: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    view, net, options = view_of(DOMAIN), network(), {"prompt": "", "label": None}
    Path("one.txt").write_text("a seven\n")
    Path("both.tsv").write_text("1.png\ta seven\n2.png\ta\n")
    (item,) = view.to_score(["1.png", "one.txt"], options, net)
    again, other = view.to_score(["both.tsv"], options, net)
    assert torch.equal(item.tokens, DOMAIN.encode("a seven"))
    assert torch.equal(item.tokens, again.tokens)
    assert item.context is not None
    assert again.context is not None
    assert torch.equal(item.context, again.context)
    assert not torch.equal(item.context, other.context)
    assert other.name == "both.tsv:2"
    with pytest.raises(UserError, match="FILE: 3 files given; give SOURCE and TARGET"):
        view.to_score(["1.png", "one.txt", "2.png"], options, net)
    Path("bad.tsv").write_text("1.png\n")
    with pytest.raises(UserError, match=r"line 1 of 'bad\.tsv' is not SOURCE, tab, TARGET"):
        view.to_score(["bad.tsv"], options, net)
    with pytest.raises(UserError, match="--prompt: the checkpoint writes captions of pictures"):
        view.to_score(["both.tsv"], options | {"prompt": "x"}, net)
