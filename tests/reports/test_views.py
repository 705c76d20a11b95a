"""Views: what a domain shows, where it goes, and a domain of one's own that works with every verb."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from arlm.domains import Domain, ImageDomain, TextDomain, TranslationDomain
from arlm.errors import UserError
from arlm.reports.view import Shown, View, view_of
from arlm.tokenizers import ByteTokenizer, CharacterTokenizer


class Scale(Domain):
    """Notes, a domain of a user's own: its view is a class of the user's."""

    unit = "note"
    view = f"{__name__}.ScaleView"
    vocab_size = 7

    def encode(self, native: str) -> torch.Tensor:
        return torch.tensor(["CDEFGAB".index(note) for note in native])

    def decode(self, tokens: torch.Tensor) -> str:
        return "".join("CDEFGAB"[token] for token in tokens)

    def units(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.ones(tokens.shape)


class ScaleView(View[Scale]):
    verbs = frozenset({"sample"})
    purpose = "plays"

    def show(self, tokens: torch.Tensor) -> Shown:
        return Shown(tokens.numel(), texts=[self.domain.decode(row) for row in tokens])


class Silent(Scale):
    """Names no view."""

    view = None


def test_a_domain_of_ones_own_is_shown_by_its_view(tmp_path: Path) -> None:
    view = view_of(Scale())
    shown = view.show(torch.tensor([[0, 2, 4]]))
    (path,) = shown.save(tmp_path / "notes")
    assert path.name == "notes.txt"
    assert path.read_text() == "--- 0\nCEG\n"
    assert shown.html() == "<pre>CEG</pre>"
    with pytest.raises(UserError, match=r"'x.ckpt' plays, .* use `arlm evaluate` or `arlm sample`"):
        view.check_verb("score", "x.ckpt")


@pytest.mark.parametrize("path", [None, "", "nothing", "arlm.nothing.View", "os.path.join"])
def test_a_domain_without_a_view_is_refused(path: str | None) -> None:
    domain = Silent()
    domain.view = path  # type: ignore[assignment,misc]
    with pytest.raises(UserError, match=r"Silent names no view of its own .*; set its `view`"):
        view_of(domain)


def test_images_are_a_grid_and_texts_are_texts(tmp_path: Path) -> None:
    images = view_of(ImageDomain(2, 3, 3)).show(torch.zeros(5, 9, dtype=torch.long))
    (grid,) = images.save(tmp_path / "grid")
    assert grid.suffix == ".png"
    assert images.html().startswith('<img alt="samples" src="data:image/png;base64,')
    texts = view_of(TextDomain(ByteTokenizer())).show(torch.tensor([[60, 97]]))
    assert texts.texts == ["<a"]
    assert texts.html() == "<pre>&lt;a</pre>"


def test_surprise_is_in_bits_and_escaped() -> None:
    view = view_of(TextDomain(CharacterTokenizer("<a")))
    page = view.surprise(torch.tensor([0, 1]), torch.tensor([2 * math.log(2), 0.0]))
    assert page.count("<span") == 2
    assert 'title="2.0 bits">&lt;</span>' in page
    assert view_of(ImageDomain(2, 3, 3)).surprise(torch.tensor([0]), torch.tensor([1.0])) == ""


def test_options_that_do_not_apply_are_refused() -> None:
    image, text = view_of(ImageDomain(2, 3, 3)), view_of(TextDomain(ByteTokenizer()))
    with pytest.raises(UserError, match="--length: 0 given, but images have a fixed size"):
        image.check_options({"length": 0})
    with pytest.raises(UserError, match=r"--gif: 'a\.gif' given, but the checkpoint draws text"):
        text.check_options({"gif": "a.gif"})
    image.check_options({"length": None, "prompt": "", "gif": "a.gif"})
    translation = view_of(TranslationDomain(ByteTokenizer()))
    with pytest.raises(UserError, match=r"translates, which `arlm sample` does not do"):
        translation.check_verb("sample", "x")


def test_files_keep_dots_in_their_names(tmp_path: Path) -> None:
    view = view_of(Scale())
    assert view.write({"": torch.zeros(1, 3, dtype=torch.long)}, tmp_path / "seed.1.txt") == [
        tmp_path / "seed.1.txt"
    ]
    images = view_of(ImageDomain(levels=2, height=2, width=2, channels=1))
    drawn = {"": torch.zeros(1, 4, dtype=torch.long)}
    assert images.write(drawn, tmp_path / "seed.2.png") == [tmp_path / "seed.2.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"seed.1.txt", "seed.2.png"}
