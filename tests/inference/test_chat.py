"""A conversation: each token is read once, and every answer is that of the whole row read anew."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from arlm.core import Autoregressor
from arlm.domains import ConversationDomain
from arlm.domains.conversation import END, Message
from arlm.errors import UserError
from arlm.inference.answers import answers, banned, turns_of
from arlm.inference.chat import Chat
from arlm.models.ngram import KneserNeyNGram
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import generate, row_seeds
from arlm.sampling.processors.greedy import Greedy
from arlm.sampling.processors.min_new_tokens import MinNewTokens
from arlm.sampling.processors.repetition_penalty import RepetitionPenalty
from arlm.tokenizers import CharacterTokenizer

DOMAIN = ConversationDomain(
    CharacterTokenizer("abcdefghij \n"), assistant_template="<|assistant|>{content}<|end|>\n"
)


def network(kind: str, length: int = 600) -> Autoregressor:
    torch.manual_seed(3)
    spec = DOMAIN.spec(length)
    nets: dict[str, Any] = {
        "transformer": lambda: TransformerLanguageModel(spec, width=16, depth=2, heads=2),
        "alibi": lambda: TransformerLanguageModel(
            spec, width=16, depth=2, heads=2, positions="alibi"
        ),
        "lstm": lambda: LSTMLanguageModel(spec, width=16),
        "ngram": lambda: KneserNeyNGram(spec, order=2),
    }
    net = nets[kind]()
    for parameter in net.parameters():  # so that answers differ
        parameter.data += torch.randn_like(parameter) * 0.4
    if kind == "ngram":
        rows = DOMAIN.render([Message("user", "abc"), Message("assistant", "dea")]).tokens[None]
        net.count(rows, torch.ones_like(rows, dtype=torch.bool))
    return net.double().eval()


class Counted:
    """Counts the tokens that a network reads."""

    def __init__(self, net: Autoregressor) -> None:
        self.starts, self.tokens, advance, start = 0, list[int](), net.advance, net.start

        def counted_advance(tokens: torch.Tensor, state: Any, lengths: Any = None) -> Any:
            assert lengths is None
            self.tokens += tokens[0].tolist()
            return advance(tokens, state, lengths)

        def counted_start(*arguments: Any) -> Any:
            self.starts += 1
            self.tokens.clear()
            return start(*arguments)

        net.advance, net.start = counted_advance, counted_start  # type: ignore[method-assign]


@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_no_token_of_twenty_turns_is_read_twice(kind: str) -> None:
    net = network(kind, 1200)
    processors = (RepetitionPenalty(1.1),)
    chat = Chat(net, DOMAIN, "abc", processors, new_tokens=9, seed=5)
    counted = Counted(net)
    for turn in range(20):
        before = chat.tokens
        pieces: list[str] = []
        reply = chat.say(f"{'abcdefghij'[turn % 10]} {'hi' * (turn % 4)}", pieces.append)
        assert "".join(pieces) == reply.text
        assert reply.dropped == 0
        assert reply.read < 25 or turn == 0
        row = chat.tokens
        assert torch.equal(row[: len(before)], before)
        read = torch.tensor(counted.tokens)
        assert torch.equal(read, row[: len(read)])
        # What closes the answer, and its last token, are read in the next turn.
        assert len(row) - len(read) in (2, 3)
    assert counted.starts == 1
    assert len(chat.messages) == 41
    # The row is the one that training would make of the conversation.
    assert torch.equal(chat.tokens, DOMAIN.render(chat.messages).tokens)
    # Each answer is that of the whole row, read anew.
    del net.advance, net.start  # type: ignore[attr-defined]
    said = [m.content for m in chat.messages]
    history = [chat.messages[0]]
    for turn in range(20):
        history.append(chat.messages[2 * turn + 1])
        prompt = row_of(chat, turn)
        length = len(prompt) + 9
        again = generate(
            *(net, row_seeds(5, 1, turn), length),
            processors=(*banned(DOMAIN), *processors),
            forced=prompt[None],
        )
        tokens = again.tokens[0, len(prompt) : int(again.lengths[0])]
        assert DOMAIN.answer(tokens) == said[2 * turn + 2]


def row_of(chat: Chat, turn: int) -> torch.Tensor:
    """The row before the answer of a turn."""
    tokens = torch.cat([chat._opening, *chat._turns[:turn]])
    return torch.cat([tokens, DOMAIN.prompt([chat.messages[2 * turn + 1]])])


def test_an_answer_that_is_cut_is_closed() -> None:
    net, long = network("lstm"), (MinNewTokens(25),)
    chat = Chat(net, DOMAIN, processors=long, new_tokens=2, seed=1)
    reply = chat.say("ab")
    assert reply.finish == "length"
    assert reply.tokens == 2
    assert DOMAIN.decode(chat.tokens) == f"<|user|>ab<|assistant|>{reply.text}{END}\n"
    before = chat.tokens
    chat.say("c")
    assert torch.equal(chat.tokens[: len(before)], before)
    # A stop string is not shown; the network has read it.
    text = Chat(net, DOMAIN, processors=long, new_tokens=30, seed=1).say("ab").text
    stopped = Chat(net, DOMAIN, processors=long, stop=(text[1:3],), new_tokens=30, seed=1)
    counted = Counted(net)
    found = stopped.say("ab")
    assert (found.text, found.finish) == (text[0], "stop")
    assert len(counted.tokens) == len(stopped.tokens) - 2
    stopped.say("c")
    assert torch.equal(torch.tensor(counted.tokens), stopped.tokens[: len(counted.tokens)])


def test_the_oldest_turns_are_dropped_when_the_window_is_full() -> None:
    net = network("transformer", 60)
    chat = Chat(net, DOMAIN, "abc", new_tokens=8, seed=2)
    counted, dropped, starts = Counted(net), 0, 0
    for turn in range(12):
        reply = chat.say("abcd"[: 1 + turn % 4])
        dropped += reply.dropped
        starts += reply.dropped > 0 or turn == 0
        assert chat.messages[0] == Message("system", "abc")
        assert [m.role for m in chat.messages[1:]] == ["user", "assistant"] * (
            len(chat.messages) // 2
        )
        assert len(chat.messages) == 1 + 2 * (turn + 1) - dropped
        assert counted.starts == starts
        assert counted.tokens == chat.tokens[: len(counted.tokens)].tolist()
        assert DOMAIN.decode(chat.tokens).startswith("<|system|>abc<|user|>")
    assert 4 < dropped < 24
    state = chat.tokens
    with pytest.raises(
        UserError, match=r"message: its 63 tokens do not fit the network's window of 60"
    ):
        chat.say("a" * 61)
    assert torch.equal(chat.tokens, state)
    with pytest.raises(UserError, match=r"system: its 62 tokens leave no room in the window of 60"):
        Chat(net, DOMAIN, "a" * 61)


def test_reset_and_resume() -> None:
    net = network("lstm")
    chat = Chat(net, DOMAIN, "abc", (Greedy(),), new_tokens=6)
    first = [chat.say(text).text for text in ("ab", "cd", "ef")]
    resumed = Chat(net, DOMAIN, "", (Greedy(),), new_tokens=6)
    resumed.resume(chat.messages[:5])
    assert resumed.say("ef").text == first[2]
    assert resumed.messages == chat.messages
    assert torch.equal(resumed.tokens, chat.tokens)
    chat.reset()
    assert chat.messages == [Message("system", "abc")]
    assert [chat.say(text).text for text in ("ab", "cd", "ef")] == first


@pytest.mark.parametrize("text", ["", "  ", "XYZ"])
def test_a_message_that_cannot_be_read_changes_nothing(text: str) -> None:
    chat = Chat(network("lstm"), DOMAIN, new_tokens=6)
    chat.say("ab")
    before = chat.tokens, chat.messages[:]
    with pytest.raises(UserError):
        chat.say(text)
    assert torch.equal(chat.tokens, before[0])
    assert chat.messages == before[1]
    assert chat.say("cd").read < 20


@pytest.mark.parametrize("inside", [False, True])
def test_an_interrupted_answer_is_kept(inside: bool) -> None:
    """By Ctrl-C between two steps, or within one: then the row is read again, since its state is lost."""
    net = network("transformer")
    whole = Chat(net, DOMAIN, new_tokens=30, seed=3).say("ab").text
    chat, shown = Chat(net, DOMAIN, new_tokens=30, seed=3), list[str]()
    advance, calls = net.advance, 0

    def interrupted(tokens: Any, state: Any, lengths: Any = None) -> Any:
        nonlocal calls
        calls += 1
        if inside and calls == 4:
            raise KeyboardInterrupt
        return advance(tokens, state, lengths)

    def show(piece: str) -> None:
        shown.append(piece)
        if not inside and len(shown) == 3:
            raise KeyboardInterrupt

    net.advance = interrupted  # type: ignore[method-assign]
    reply = chat.say("ab", show)
    assert reply.finish == "interrupted"
    assert 0 < len(reply.text) < len(whole)
    assert whole.startswith(reply.text)
    assert DOMAIN.decode(chat.tokens) == f"<|user|>ab<|assistant|>{reply.text}{END}\n"
    net.advance = advance  # type: ignore[method-assign]
    counted = Counted(net)
    chat.say("cd")
    assert counted.starts == inside
    again = Chat(net, DOMAIN, new_tokens=30, seed=3)
    again._turns, again._answered = [chat._turns[0]], 1
    again.say("cd")
    assert torch.equal(again.tokens, chat.tokens)


def test_an_interrupt_at_the_last_piece_loses_no_token() -> None:
    net = network("transformer")
    whole = Chat(net, DOMAIN, new_tokens=4, seed=3)
    pieces: list[str] = []
    reply = whole.say("ab", pieces.append)
    chat, shown = Chat(net, DOMAIN, new_tokens=4, seed=3), list[str]()
    counted = Counted(net)

    def show(piece: str) -> None:
        shown.append(piece)
        if shown == pieces:
            raise KeyboardInterrupt

    assert chat.say("ab", show) == reply
    assert reply.finish == "length"
    assert chat._read == whole._read == len(counted.tokens)
    chat.say("cd")
    assert counted.starts == 1
    assert torch.equal(torch.tensor(counted.tokens), chat.tokens[: len(counted.tokens)])


def test_an_interrupt_while_the_prompt_is_read_changes_nothing() -> None:
    net = network("transformer", 60)
    chat = Chat(net, DOMAIN, "abc", new_tokens=8, seed=2)
    while chat.say("ab").dropped == 0:
        pass
    before, messages, advance = chat.tokens, chat.messages[:], net.advance

    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    net.advance = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        chat.say("abcdefg")  # would drop turns
    assert torch.equal(chat.tokens, before)
    assert chat.messages == messages
    net.advance = advance  # type: ignore[method-assign]
    counted = Counted(net)
    assert chat.say("abcdefg").dropped > 0
    assert counted.tokens == chat.tokens[: len(counted.tokens)].tolist()


@pytest.mark.parametrize("unended", [0, 99])
def test_answers_of_many_prompts_are_those_of_each_alone(unended: float) -> None:
    net = network("transformer", 40)
    net.head.bias.data[DOMAIN.tokenizer.vocab_size :] -= unended  # type: ignore[union-attr,operator]
    conversations = [
        [
            Message("user", "ab"),
            Message("assistant", "c"),
            Message("user", "d"),
            Message("assistant", "e"),
        ],
        [Message("user", "abcabc"), Message("assistant", "f")],
    ]
    turns = list(turns_of(conversations, DOMAIN))
    assert [(turn.text, turn.answer) for turn in turns] == [
        ("ab", "c"),
        ("d", "e"),
        ("abcabc", "f"),
    ]
    found, counts = answers(net, DOMAIN, [turn.prompt for turn in turns])
    for turn, answer, count in zip(turns, found, counts, strict=True):
        alone = generate(net, [0], 40, processors=(Greedy(),), forced=turn.prompt[None])
        tokens = alone.tokens[0, len(turn.prompt) : int(alone.lengths[0])]
        assert answer == DOMAIN.answer(tokens)
        assert count == len(tokens)
    assert len(set(found)) > 1
    sizes = {len(turn.prompt) + len(answer) for turn, answer in zip(turns, found, strict=True)}
    assert (sizes == {40}) == (unended > 0)  # up to the length of the network's rows


def test_no_answer_has_the_tokens_of_other_speakers() -> None:
    net = network("transformer")
    net.head.bias.data[DOMAIN.never_drawn] += 20  # type: ignore[union-attr,operator]
    reply = Chat(net, DOMAIN, new_tokens=20).say("ab")
    assert reply.tokens > 1
    assert "<|" not in reply.text
