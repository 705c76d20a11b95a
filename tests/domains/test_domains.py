"""Domains round-trip, and the units of tokens are correct."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arlm.domains import ImageDomain
from arlm.errors import UserError

# All of Unicode but lone surrogates, which no UTF-8 text can hold.


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
def test_any_8_bit_image_round_trips(channels: int, height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (2, height, width, channels), generator=generator).to(torch.uint8)
    domain = ImageDomain(256, height, width, channels)
    tokens = domain.encode(images)
    assert tokens.shape == (2, height * width * channels)
    assert torch.equal(domain.decode(tokens), images)
    assert domain.units(tokens).sum() == tokens.numel()


@pytest.mark.parametrize("levels", range(2, 257))
def test_every_number_of_levels_round_trips(levels: int) -> None:
    domain = ImageDomain(levels, 1, levels)
    tokens = torch.arange(levels)
    images = domain.decode(tokens)
    assert torch.equal(domain.encode(images), tokens)
    assert images.min() == 0
    assert images.max() == 255
    grey = torch.arange(256, dtype=torch.uint8).view(1, 256, 1)
    near = ImageDomain(levels, 1, 256)
    step = 256 / levels
    assert (near.decode(near.encode(grey)).int() - grey.int()).abs().max() <= step


def test_raster_order_is_rows_then_columns_then_channels() -> None:
    image = torch.arange(12, dtype=torch.uint8).view(2, 2, 3)
    assert ImageDomain(256, 2, 2, 3).encode(image).tolist() == list(range(12))


def test_bad_images_are_refused() -> None:
    with pytest.raises(UserError, match="levels: 300"):
        ImageDomain(300, 2, 2)
    with pytest.raises(UserError, match="expected"):
        ImageDomain(4, 2, 2).encode(torch.zeros(2, 3, 1, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"torch\.float32"):
        ImageDomain(4, 2, 2).encode(torch.zeros(2, 2, 1))
