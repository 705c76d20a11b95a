"""Captioned digits: a caption is true of its canvas; images and captions of the test are not in training."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from arlm.data.dataset import Rows
from arlm.errors import UserError
from datamodules.captioned_digits import NAMES, CaptionedDigits
from datamodules.digits import Digits

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def data() -> CaptionedDigits:
    return CaptionedDigits(count=3000)


def drawings() -> dict[bytes, tuple[str, str, int]]:
    """Each image of a digit, bold or thin, as bytes, with weight, name and number of the image."""
    found = {}
    digits = load_digits()
    for weight in ("bold", "thin"):
        for number, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
            ink = 2 * image if weight == "bold" else (image - 5) * 16 / 11
            drawn = torch.from_numpy((ink.clip(0, 16) * 255 / 16).round()).to(torch.uint8)
            found[drawn.numpy().tobytes()] = weight, NAMES[digit], number
    return found


@pytest.mark.parametrize("split", SPLITS)
def test_a_caption_is_true_of_its_canvas(data: CaptionedDigits, split) -> None:
    """The digits are looked up in the canvas, wherever they are, and described by the rule of the module."""
    known, seen = drawings(), set()
    for canvas, caption in list(zip(*data.sentences(split), strict=True))[:100]:
        pixels = canvas.squeeze(-1)
        corners = [(y, x) for y in range(11) for x in range(11)]
        found = {
            (y, x): known[part]
            for y, x in corners
            if (part := pixels[y : y + 8, x : x + 8].numpy().tobytes()) in known
        }
        ((y, x), first), ((v, u), second) = sorted(found.items(), key=lambda one: sum(one[0]))
        seen |= {first[2], second[2]}
        assert (u - x >= 8) != (
            v - y >= 8
        )  # side by side, or one above the other, without touching
        relation, opposite = ("left of", "right of") if u - x >= 8 else ("above", "below")
        if (first[0], second[0]) == ("thin", "bold"):
            first, second, relation = second, first, opposite
        assert caption == f"a {first[0]} {first[1]} {relation} a {second[0]} {second[1]}"
    plain = {"train": 1437, "val": 180, "test": 180}
    own = Digits().build(split)
    assert len(own) == plain[split]
    originals = torch.from_numpy(load_digits().images[sorted(seen)]).flatten(1).to(torch.uint8)
    assert {bytes(row.tolist()) for row in originals} <= {bytes(r.tolist()) for r in own.tokens}


def test_held_out_captions_are_made_of_words_that_training_holds(data: CaptionedDigits) -> None:
    train, val, test = (set(data.sentences(split).target) for split in SPLITS)
    assert not train & val
    assert not train & test
    assert not val & test
    assert {w for c in val | test for w in c.split()} <= {w for c in train for w in c.split()}
    assert len(data.sentences("test").target) == len(data.sentences("val").target) == 1000
    again = CaptionedDigits(count=3000, seed=5)
    assert again.provenance == data.provenance
    assert len({v for k, v in data.provenance.items() if k.endswith("sha256")}) == 3


def test_batches_hold_the_picture_and_its_caption(data: CaptionedDigits) -> None:
    spec = data.spec
    assert spec.context is not None
    batch = data.dataset("val")[Rows(0, torch.tensor([4, 9, 2]))]
    assert batch.context is not None
    assert batch.context.shape == (3, spec.context.length) == (3, 81)
    pictures, captions = data.sentences("val")
    for row, index in enumerate([4, 9, 2]):
        scored = batch.tokens[row][batch.scored[row]]
        assert data.domain.decode(scored) == captions[index]
        assert scored[-1] == spec.eos_id
        again = data.domain.encode_source(data.domain.decode_source(batch.context[row]))
        assert torch.equal(again, data.domain.encode_source(pictures[index]))
    assert data.words("val") == sum(len(caption.split()) for caption in captions)


def test_mistakes() -> None:
    with pytest.raises(UserError, match=r"data\.levels: 6 is out of range; choose a power of two"):
        CaptionedDigits(levels=6)
    with pytest.raises(UserError, match=r"data\.count: 0"):
        CaptionedDigits(count=0)
    with pytest.raises(UserError, match="patch: 4 is out of range; choose a divisor of 18 and 18"):
        CaptionedDigits(count=9, patch=4).domain  # noqa: B018
