"""Streamed text is the text that is drawn, piece by piece; stop strings end it, across pieces."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arlm.core import Autoregressor, Spec
from arlm.domains import TextDomain
from arlm.errors import UserError
from arlm.inference.completer import Piece, stream
from arlm.inference.stops import check_stops, overlap, spells
from arlm.sampling import SamplerState, Steps, begin, finish_reasons, generate, prepare
from arlm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer, WordTokenizer
from arlm.tokenizers.base import Tokenizer

TEXT = "Où est-il ? 東京の空, naïve café — 🦜🦜 the end. The end\n\nof it."


class Recites(Autoregressor):
    """Row i continues with given tokens, one after the other, whatever the noise."""

    def __init__(self, rows: list[torch.Tensor], vocab_size: int) -> None:
        super().__init__(Spec(vocab_size, (max(map(len, rows)) + 1,)))
        self.embed = torch.nn.Identity()
        self.scale = torch.nn.Parameter(torch.tensor(50.0))
        self.given = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def forward(self, tokens, context=None):
        following = torch.nn.functional.one_hot(self.given, self.spec.vocab_size)
        return self.scale * following[: len(tokens), : tokens.shape[1]].float()


def pieces(
    tokenizer: Tokenizer, texts: list[str], stop=(), block: int = 1, prompt: int = 0
) -> list[Piece]:
    rows = [tokenizer.encode(text, strict=False) for text in texts]
    net = Recites(rows, tokenizer.vocab_size)
    limits = torch.tensor([len(row) for row in rows])
    forced = net.given[:, :prompt] if prompt else None
    free, seeds = prepare(net, range(len(rows)), int(limits.max()), forced)
    state = begin(net, free, seeds, limits=limits, rows=torch.arange(10, 10 + len(rows)))
    return list(stream(Steps(net, state, block=block), tokenizer.decode, stop))


def joined(found: list[Piece], row: int) -> str:
    assert [piece.ended for piece in found if piece.row == row].index(True) == (
        sum(piece.row == row for piece in found) - 1
    ), "the last piece, and no other, ends the row"
    return "".join(piece.text for piece in found if piece.row == row)


TOKENIZERS = [
    ByteTokenizer(),
    CharacterTokenizer(TEXT),
    WordTokenizer(TEXT.split()),
    BPETokenizer.train([TEXT] * 3, 300),
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("block", [1, 5])
def test_pieces_join_to_the_decoded_text(tokenizer: Tokenizer, block: int) -> None:
    texts = [TEXT, TEXT[5:30]]
    found = pieces(tokenizer, texts, block=block)
    for row, text in enumerate(texts):
        decoded = tokenizer.decode(tokenizer.encode(text, strict=False))
        assert joined(found, 10 + row) == decoded
        assert len(found) > 2


def test_incomplete_characters_are_held_back() -> None:
    found = pieces(ByteTokenizer(), ["a東🦜b"])
    assert [piece.text for piece in found] == ["a", "東", "🦜", "b"]
    # A row that ends inside a character shows what there is.
    cut = ByteTokenizer()
    cut.encode = lambda text, strict=False: torch.tensor([97, 0xE6, 0x9D])  # type: ignore[method-assign]
    assert [piece.text for piece in pieces(cut, ["x"])] == ["a", "\ufffd"]


@settings(max_examples=60, deadline=None)
@given(
    st.text("ab\n", min_size=1, max_size=24),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
)
def test_stop_strings_end_a_text_where_they_first_occur(text: str, stop: list[str]) -> None:
    # The stop string that ends first counts; of those that end together, the longest.
    places = [(text.find(one) + len(one), text.find(one)) for one in stop if one in text]
    expected = text[: min(places)[1]] if places else text
    for block in (1, 3):
        found = pieces(ByteTokenizer(), [text], stop, block)
        assert joined(found, 10) == expected
        shown = ""
        for piece in found:
            shown += piece.text
            assert expected.startswith(shown), "what is shown is never taken back"


def test_a_stop_string_in_the_prompt_does_not_count() -> None:
    found = pieces(ByteTokenizer(), ["a.b c.d"], stop=["."], prompt=2)
    assert joined(found, 10) == "a.b c"


def test_a_stopped_row_is_not_drawn_further() -> None:
    rows = [ByteTokenizer().encode(text) for text in ("ab.cdefgh", "abcdefghi")]
    net = Recites(rows, 256)
    free, seeds = prepare(net, range(2), 9, None)
    steps = Steps(net, begin(net, free, seeds))
    found = list(stream(steps, ByteTokenizer().decode, ["."]))
    assert steps.state.lengths.tolist() == [3, 9]
    assert (joined(found, 0), joined(found, 1)) == ("ab", "abcdefghi")


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: type(t).__name__)
def test_rows_end_at_the_token_that_completes_a_stop_string(tokenizer: Tokenizer) -> None:
    """Whatever the size of blocks: the first prefix whose text has the string, and why it ended."""
    row = tokenizer.encode(TEXT, strict=False)
    decode = tokenizer.decode
    for stop in (["空,", "the e"], ["é — 🦜"], ["nowhere"]):
        whole = (n for n in range(len(row) + 1) if any(one in decode(row[:n]) for one in stop))
        end = next(whole, len(row))
        reason = "length" if stop == ["nowhere"] else "stop"
        for block in (1, 4, 64):
            net = Recites([row], tokenizer.vocab_size)
            free, seeds = prepare(net, [0], len(row), None)
            steps = Steps(net, begin(net, free, seeds), block=block)
            *_, last = stream(steps, decode, stop)
            assert (last.ended, last.finish) == (True, reason)
            assert finish_reasons(steps.state, net.spec) == [reason]
            assert steps.state.lengths.tolist() == [end]
            assert steps.state.tokens[0].tolist() == row[:end].tolist() + [0] * (len(row) - end)
            assert (steps.state.log_prob[0, end:] == 0).all()


def spelled(tokenizer: Tokenizer, tokens: int) -> set[str]:
    """Every string that is part of the text of some row of so many tokens."""
    found: set[str] = set()
    for row in itertools.product(range(tokenizer.vocab_size), repeat=tokens):
        text = tokenizer.decode(torch.tensor(row))
        found |= {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    return found


@pytest.mark.parametrize(
    ("tokenizer", "letters"),
    [(WordTokenizer(["ab", "b"]), "ab <\n"), (CharacterTokenizer("ab"), "abc")],
    ids=["words", "characters"],
)
def test_a_stop_string_can_be_spelled_if_some_row_has_it(
    tokenizer: Tokenizer, letters: str
) -> None:
    """All strings of up to 4 letters; 6 tokens are enough to spell them."""
    domain, there = TextDomain(tokenizer), spelled(tokenizer, 6)
    for size in (1, 2, 3, 4):
        for one in map("".join, itertools.product(letters, repeat=size)):
            assert spells(domain, one) == (one in there), repr(one)


def test_bytes_spell_everything_and_others_say_what_they_cannot() -> None:
    check_stops(["🦜\n", "é"], TextDomain(ByteTokenizer()))
    check_stops(["🦜 the"], TextDomain(BPETokenizer.train([TEXT] * 3, 300)))
    with pytest.raises(UserError, match=r"--stop: the vocabulary cannot spell 'xyz'"):
        check_stops(["a", "xyz"], TextDomain(CharacterTokenizer("ab")))


def test_a_row_that_enters_is_streamed_too() -> None:
    rows = [ByteTokenizer().encode("abcd")] * 2
    net = Recites(rows, 256)
    free, seeds = prepare(net, range(2), 4, None)

    def begun(row: int) -> SamplerState:
        return begin(net, free[:1], seeds[:1], rows=torch.tensor([row]))

    steps = Steps(net, begun(0))
    found = {0: "", 1: ""}
    for piece in stream(steps, ByteTokenizer().decode):
        found[piece.row] += piece.text
        if piece.ended and piece.row == 0:
            steps.state = steps.state.assign(torch.tensor([0]), begun(1))
    assert found == {0: "abcd", 1: "abcd"}


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(UserError, match="--stop: '' is out of range"):
        pieces(ByteTokenizer(), ["ab"], stop=[""])


def test_overlap() -> None:
    assert overlap("abc\n", "\n\n") == 1
    assert overlap("ab", "abab") == 2
    assert overlap("abab", "abab") == 2  # a whole stop string is found, not held back
    assert overlap("", "x") == 0


def test_recites_is_a_network() -> None:
    rows = [ByteTokenizer().encode("abc")]
    assert generate(Recites(rows, 256), [0], 3).tokens[0].tolist() == [97, 98, 99]
