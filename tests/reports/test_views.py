"""Views: what a domain shows, where it goes, and a domain of one's own that works with every verb."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from arlm.domains import Domain, ImageDomain, TextDomain, TranslationDomain
from arlm.errors import UserError
from arlm.inference.items import Item, ItemScores
from arlm.models.pixelsnail import PixelSNAIL
from arlm.reports.attention_page import attend, labels_of, page
from arlm.reports.images import SCALE, heat_map
from arlm.reports.tokens import pieces
from arlm.reports.view import Shown, View, view_of
from arlm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer, WordTokenizer
from arlm.tokenizers.base import Tokenizer


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
    assert shown.html().strip() == '<pre class="tall">CEG</pre>'
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
    assert '<img alt="samples" src="data:image/png;base64,' in images.html()
    texts = view_of(TextDomain(ByteTokenizer())).show(torch.tensor([[60, 97]]))
    assert texts.texts == ["<a"]
    assert texts.html().strip() == '<pre class="tall">&lt;a</pre>'


def scores(tokens: list[int], bits: list[float], top: list[list[int]] | None = None) -> ItemScores:
    nats = torch.tensor(bits).double() * math.log(2)
    best = torch.tensor(top) if top else torch.empty(len(tokens), 0, dtype=torch.long)
    item = Item("x", torch.tensor(tokens))
    return ItemScores(
        item, nats, torch.tensor([2] * len(tokens)), best, torch.full(best.shape, 0.7)
    )


def test_surprise_is_in_bits_and_escaped() -> None:
    view = view_of(TextDomain(CharacterTokenizer("<a b")))
    page = view.surprise(scores([1, 2], [2.0, 0.0], [[2, 0], [1, 3]]))
    assert page.count("<b") == 2
    assert '<b class="s4" title="&lt; 2.00 bits, 25 %, rank 2 · likeliest: ' in page
    assert "a 50 % · ␣ 50 %" in page
    assert '<b title="a 0.00 bits, 100 %' in page
    cut = view.surprise(scores([1, 2, 3], [1.0, 1.0, 1.0]), most=2)
    assert cut.count("<b") == 2
    assert "1 more tokens" in cut


def test_the_better_of_two_models_colours_a_token() -> None:
    view = view_of(TextDomain(CharacterTokenizer("ab")))
    mine, other = scores([0, 1, 0], [1.0, 3.0, 2.0]), scores([0, 1, 0], [4.0, 0.0, 2.0])
    page = view.difference(mine, other, ("M", "N"))
    assert 'class="a16" title="a 3.00 bits better: M (1.00 and 4.00 bits)"' in page
    assert 'class="b16" title="b 3.00 bits better: N (3.00 and 0.00 bits)"' in page
    assert page.count("class=") == 3  # equal bits have no colour; one is the text's own


@pytest.mark.parametrize("text", ["Où est-il ? 東京 🦜🦜.", "the end. the  end\n", ""])
@pytest.mark.parametrize(
    "tokenizer",
    [
        ByteTokenizer(),
        WordTokenizer(["the", "end."]),
        BPETokenizer.train(["the end. the end"] * 3, 300),
    ],
    ids=lambda t: type(t).__name__,
)
def test_pieces_join_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text, strict=False)
    found = pieces(tokens, tokenizer.decode)
    assert len(found) == len(tokens)
    assert "".join(found) == tokenizer.decode(tokens)


def test_pieces_of_bytes_are_whole_characters() -> None:
    decode = ByteTokenizer().decode
    assert pieces(torch.tensor([*"a€b".encode()]), decode) == ["a", "", "", "€", "b"]
    assert pieces(torch.tensor([255, 97, 226, 130]), decode) == ["\ufffd", "a", "\ufffd", ""]


def test_options_that_do_not_apply_are_refused() -> None:
    image, text = view_of(ImageDomain(2, 3, 3)), view_of(TextDomain(ByteTokenizer()))
    with pytest.raises(UserError, match="--max-new-tokens: 0 given, but images have a fixed size"):
        image.check_options({"max_new_tokens": 0})
    with pytest.raises(UserError, match=r"--gif: 'a\.gif' given, but the checkpoint draws text"):
        text.check_options({"gif": "a.gif"})
    image.check_options({"max_new_tokens": None, "prompt": "", "gif": "a.gif"})
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


def test_a_page_shows_whole_images() -> None:
    domain = ImageDomain(2, 3, 3, channels=3)
    tokens = torch.zeros(54, dtype=torch.long)
    nothing = torch.empty(54, 0)
    item = ItemScores(Item("x", tokens), torch.ones(54).double(), tokens, nothing.long(), nothing)
    view = view_of(domain)
    one = view.surprise(item, 27)
    assert one.count("<img") == 1
    assert view.surprise(item, 20) == view.surprise(item, 53) == one
    assert view.surprise(item, 54) != one


def test_a_pixel_is_named_by_its_channels() -> None:
    torch.manual_seed(0)
    domain = ImageDomain(2, 2, 3, channels=3)
    net = PixelSNAIL(domain.spec, width=6, depth=1, residuals=1, key_width=2, value_width=4).eval()
    item = Item("x", torch.tensor([0, 0, 1] * 6))
    view = view_of(domain)
    found = attend(net, item)
    asks, reads = labels_of(item, view, found)["pixels"]
    assert asks == reads == ["0 0 1"] * 6
    assert found[0].weights.shape[1:] == (6, 6)
    shown = page(found, labels_of(item, view, found), view, "x", "y")
    assert 'side = {"context": null, "pixels": 3, "tokens": 9}' in shown


class Bells(Scale):
    """Notes that are written to files."""

    view = f"{__name__}.BellsView"


class BellsView(ScaleView):
    default_out = "bells.bell"

    def show(self, tokens: torch.Tensor) -> Shown:
        files = {f"-{i}.wav": self.domain.decode(row).encode() for i, row in enumerate(tokens)}
        return Shown(tokens.numel(), files=files)


def test_a_view_refuses_the_options_of_the_other_kind_of_samples() -> None:
    printed, written = view_of(Scale()), view_of(Bells())
    with pytest.raises(
        UserError, match=r"--stop: \['x'\] given, but the checkpoint plays; omit it"
    ):
        written.check_options({"stop": ["x"]})
    written.check_options({"stop": [], "sweep": "top_k=1,2", "beam": None})
    with pytest.raises(UserError, match="--sweep: 'top_k=1,2' given, but the checkpoint plays"):
        printed.check_options({"sweep": "top_k=1,2"})
    printed.check_options({"stop": ["x"]})
    with pytest.raises(UserError, match="--complete: the checkpoint plays, which it does not"):
        written.forced({"complete": "x.bell"})


def test_a_sweep_and_several_samples_have_a_file_each(tmp_path: Path) -> None:
    rows = torch.tensor([[0, 1], [2, 3]])
    drawn = {"top_k 1": rows, "top_k 2": rows}
    paths = view_of(Bells()).write(drawn, tmp_path / "a.bell")
    names = [f"a-top_k-{k}-{i}.wav" for k in (1, 2) for i in (0, 1)]
    assert [path.name for path in paths] == names
    assert (tmp_path / names[1]).read_bytes() == b"EF"
    assert view_of(Bells()).show(rows).html().count('<audio controls src="data:audio/wav') == 2


def test_a_map_of_surprise_has_a_scale() -> None:
    bits = torch.tensor([[[0.0, 1.0], [2.0, 4.0]]])
    picture = heat_map(torch.zeros(1, 2, 2, 1, dtype=torch.uint8), bits)
    maps, scale = picture[:-SCALE], picture[-SCALE:]
    used = [
        maps[maps.shape[0] * (1 + 2 * y) // 4, maps.shape[1] * (5 + 2 * x) // 8]
        for y in (0, 1)
        for x in (0, 1)
    ]
    row = scale[0].tolist()
    assert used[0].tolist() in row
    assert used[3].tolist() in row
    at = [
        min(
            range(len(row)),
            key=lambda i: sum(abs(a - b) for a, b in zip(row[i], colour.tolist(), strict=True)),
        )
        for colour in used
    ]
    first, last = at[0], at[3]
    assert at[1] == pytest.approx(first + (last - first) / 4, abs=2)
    assert at[2] == pytest.approx(first + (last - first) / 2, abs=2)
    assert (heat_map(torch.zeros(1, 2, 2, 1, dtype=torch.uint8), bits / 2)[-SCALE:] != scale).any()
    assert heat_map(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), 0 * bits).shape == picture.shape
