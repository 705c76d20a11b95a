"""Pictures as sources: patches as tokens, and back; what does not fit is refused."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arlm import checkpoints
from arlm.domains import CaptionDomain, Domain
from arlm.errors import UserError
from arlm.tokenizers import WordTokenizer

WORDS = WordTokenizer(["a", "seven", "left", "of"])


@settings(deadline=None)
@given(
    st.sampled_from([(16, 1, 1), (4, 1, 2), (2, 3, 2), (256, 1, 1), (6, 3, 1)]),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 2**31),
)
def test_a_picture_round_trips_to_its_levels(kind, size, seed: int) -> None:
    levels, channels, patch = kind
    height, width = (patch * n for n in size)
    domain = CaptionDomain(WORDS, levels, height, width, channels, patch)
    noise = torch.Generator().manual_seed(seed)
    picture = torch.randint(256, (height, width, channels), generator=noise).to(torch.uint8)
    tokens = domain.encode_source(picture)
    assert tokens.shape == (size[0] * size[1],)
    assert tokens.max() < domain.pad_id
    expected = domain.image.decode(domain.image.encode(picture))
    assert torch.equal(domain.decode_source(tokens), expected)
    assert torch.equal(domain.encode_source(expected), tokens)


def test_patches_are_in_raster_order_and_their_pixels_are_digits() -> None:
    domain = CaptionDomain(WORDS, levels=4, height=2, width=4, patch=2)
    rows = [[0, 1, 0, 0], [2, 3, 0, 1]]
    picture = torch.tensor(rows, dtype=torch.uint8)[..., None] * 64
    assert domain.encode_source(picture).tolist() == [0 + 1 * 4 + 2 * 16 + 3 * 64, 1 * 64]


def test_the_spec_is_that_of_a_picture_and_a_text() -> None:
    domain = CaptionDomain(WORDS, levels=4, height=6, width=4, patch=2)
    spec = domain.spec(9)
    assert spec.context is not None
    assert (spec.length, spec.context.shape, spec.context.pad_id) == (9, (3, 2, 1), 256)
    assert spec.context.vocab_size == 257
    tokens = domain.encode("a seven left of a four")  # "four" is unknown
    assert domain.decode(tokens) == "a seven left of a <unk>"
    assert tokens[-1] == spec.eos_id == spec.vocab_size - 1
    assert domain.units(tokens[:2]).tolist() == [2, 6]  # a word, and the space before it
    copy = checkpoints.build(json.loads(json.dumps(checkpoints.describe(domain))), Domain)
    assert copy.spec(9) == spec


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(UserError, match="patch: 3 is out of range; choose a divisor of 6 and 4"):
        CaptionDomain(WORDS, levels=4, height=6, width=4, patch=3)
    with pytest.raises(UserError, match="choose fewer levels or smaller patches"):
        CaptionDomain(WORDS, levels=256, height=6, width=4, channels=3)
    with pytest.raises(UserError, match=r"expected \(\.\.\., 6, 4, 1\)"):
        CaptionDomain(WORDS, levels=4, height=6, width=4).encode_source(
            torch.zeros(4, 6, 1, dtype=torch.uint8)
        )
