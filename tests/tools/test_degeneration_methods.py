"""Searches of the degeneration study whose numbers cannot be used are one line."""

from __future__ import annotations

import pytest

from arlm.domains import TextDomain
from arlm.errors import UserError
from arlm.tokenizers import CharacterTokenizer
from tools.degeneration.methods import parse_method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contrastive=5:penalty=1.2.3", "contrastive needs a number for penalty, not '1.2.3'"),
        ("contrastive=5:penalty=2", "--method: contrastive:penalty: 2.0 is out of range"),
        ("contrastive=5:penalty=nan", "--method: contrastive:penalty: nan is out of range"),
        ("contrastive=5:penalty=", "--method: 'contrastive=5:penalty=' is not understood"),
        ("contrastive=0", "--method: contrastive: 0 is out of range; choose 1 or more"),
        ("beam=0", "--method: beam: 0 is out of range; choose 1 or more"),
        ("beam=" + "9" * 5000, "--method: beam needs a number for width, not '999"),
        ("beam=4:penalty=0.5", "--method: beam has no penalty; write beam=4"),
    ],
)
def test_searches_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse_method(text, TextDomain(CharacterTokenizer("ab")))
    assert message in str(error.value)


def test_numbers_of_a_search_are_read() -> None:
    domain = TextDomain(CharacterTokenizer("ab"))
    method = parse_method("contrastive=3:penalty=0", domain)
    assert (method.beam, method.candidates, method.penalty) == (0, 3, 0.0)
    assert parse_method("contrastive=3", domain).penalty == 0.6
    method = parse_method("beam=2", domain)
    assert (method.beam, method.candidates) == (2, 0)
