"""Completions of a text that ends within a token: equal to the enumeration of all rows of a small vocabulary."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import pytest
import torch
from torch import Tensor

from arlm.core import Spec
from arlm.errors import UserError
from arlm.inference.completions import completions
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling.processors import parse_processors
from arlm.tokenizers import ByteTokenizer, Tokenizer, WordTokenizer
from arlm.tokenizers.base import utf8_bytes


class Parts(Tokenizer):
    """Parts of words, the longest first."""

    def __init__(self) -> None:
        self.parts = ["a", "b", "ab", "ba", "abab", "bb"]
        self.vocab_size = len(self.parts)
        self.token_bytes = utf8_bytes(self.parts)

    @property
    def definition(self) -> str:
        return "parts"

    def ids(self, text: str, strict: bool) -> Tensor:
        found = []
        while text:
            part = max((p for p in self.parts if text.startswith(p)), key=len)
            found.append(self.parts.index(part))
            text = text[len(part) :]
        return torch.tensor(found, dtype=torch.long)

    def decode(self, tokens: Tensor) -> str:
        return "".join(self.parts[token] for token in tokens.tolist())


def network(size: int) -> TransformerLanguageModel:
    torch.manual_seed(1)
    net = TransformerLanguageModel(Spec(size, (8,)), width=8, depth=1, heads=2).double().eval()
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.4 * torch.randn_like(weight)
    return net


@pytest.mark.parametrize("text", ["a", "ab", "aba", "abab", "babb", "abba"])
def test_completions_are_those_of_the_enumeration(text: str) -> None:
    tokenizer, net = Parts(), network(6)
    expected: defaultdict[str, float] = defaultdict(float)
    for size in range(1, len(text) + 1):
        for row in product(range(6), repeat=size):
            tokens = torch.tensor(row)
            before, whole = tokenizer.decode(tokens[:-1]), tokenizer.decode(tokens)
            covers = len(before) < len(text) and whole.startswith(text)
            if covers and tokenizer.encode(before).tolist() == list(row[:-1]):
                expected[whole[len(text) :]] += float(net.log_prob(tokens[None]).sum().exp())
    total = sum(expected.values())
    found = completions(net, tokenizer, text)
    assert {one.added for one in found} == set(expected)
    for one in found:
        assert one.probability == pytest.approx(expected[one.added] / total, abs=1e-10)
    assert [one.probability for one in found] == sorted(
        (one.probability for one in found), reverse=True
    )


def test_processors_shape_the_completions() -> None:
    tokenizer, net = Parts(), network(6)
    plain, cold = (
        {one.added: one.probability for one in completions(net, tokenizer, "b", chosen)}
        for chosen in ((), parse_processors("temperature=0.5"))
    )
    squares = {added: value**2 for added, value in plain.items()}  # one place, one token each
    assert cold == pytest.approx({k: v / sum(squares.values()) for k, v in squares.items()})
    message = "^--processors: they leave no token that completes 'ba'; omit one, or give another --prompt$"
    with pytest.raises(UserError, match=message):
        completions(net, tokenizer, "ba", parse_processors("bad_words=[[0],[2],[3],[4]]"))


def test_an_unfinished_word_and_character() -> None:
    words = WordTokenizer(["the", "cat", "car", "dog"])
    found = completions(network(6), words, "the ca")
    assert {one.added for one in found} == {"t", "r"}
    assert sum(one.probability for one in found) == pytest.approx(1)
    with pytest.raises(UserError, match="no token has the end of 'the x' at its beginning"):
        completions(network(6), words, "the x")
    (byte,) = completions(network(256), ByteTokenizer(), "é")  # its second byte ends with the text
    assert byte == ("", pytest.approx(1))
