"""Conversations are written by their template, and only answers are scored."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arlm import checkpoints
from arlm.domains import ConversationDomain, Domain
from arlm.domains.conversation import END, Message
from arlm.errors import UserError
from arlm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer, SentenceTokenizer

ALPACA = {
    "system_template": "{content}\n\n",
    "user_template": "### Instruction:\n{content}\n\n",
    "assistant_template": "### Response:\n{content}<|end|>\n\n",
}
CHAT = [
    Message("system", "be brief"),
    Message("user", "hi"),
    Message("assistant", "ho"),
    Message("user", "x y"),
    Message("assistant", "z"),
]
TEXTS = [m.content for m in CHAT] + ["### Instruction:\n", "### Response:\n\n"]
TOKENIZERS = [ByteTokenizer(), CharacterTokenizer("".join(TEXTS)), BPETokenizer.train(TEXTS, 280)]
said = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(st.lists(said, min_size=2, max_size=6), st.booleans(), st.booleans())
def test_a_conversation_is_its_template_and_its_answers_are_scored(
    texts: list[str], system: bool, alpaca: bool
) -> None:
    texts = texts[: len(texts) // 2 * 2]
    roles = ["user", "assistant"] * len(texts)
    messages = list(map(Message, roles, texts))
    if system:
        messages.insert(0, Message("system", texts[-1]))
    domain = ConversationDomain(ByteTokenizer(), **(ALPACA if alpaca else {}))
    rendered = domain.render(messages)
    expected = "".join(domain.template[m.role].replace("{content}", m.content) for m in messages)
    assert domain.decode(rendered.tokens) == expected
    assert torch.equal(domain.encode(messages), rendered.tokens)
    answers = [m.content for m in messages if m.role == "assistant"]
    spans = [rendered.tokens[a:b] for a, b in domain.answers(rendered)]
    assert [domain.decode(span) for span in spans] == [answer + END for answer in answers]
    assert [domain.answer(span) for span in spans] == answers
    assert sum(map(len, spans)) == rendered.scored.sum()
    # The end of an answer counts as one byte, and what is not said as none.
    units = domain.units(rendered.tokens)[rendered.scored].sum()
    assert units == sum(len(answer.encode()) + 1 for answer in answers)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("template", [{}, ALPACA], ids=["roles", "alpaca"])
def test_a_prompt_is_the_beginning_of_the_row_that_is_trained(tokenizer, template) -> None:
    """The seam between prompt and answer is the same in training and in use, whatever the tokenizer joins."""
    domain = ConversationDomain(tokenizer, **template)
    row = domain.render(CHAT)
    (_, end), (first, _) = domain.answers(row)
    assert torch.equal(domain.prompt(CHAT[:-1]), row.tokens[:first])
    assert torch.equal(domain.prompt(CHAT[:2]), row.tokens[: domain.prompt(CHAT[:2]).numel()])
    # Turn by turn, as `Chat` makes it.
    closing = domain.closing
    turns = [domain.prompt([m]) for m in CHAT if m.role == "user"]
    parts = [domain.render(CHAT[:1]).tokens, turns[0], tokenizer.encode("ho"), closing, turns[1]]
    assert torch.equal(torch.cat(parts), row.tokens[:first])
    assert torch.equal(row.tokens[end - 1 : end - 1 + len(closing)], closing)


def test_no_message_holds_a_special_token() -> None:
    domain = ConversationDomain(BPETokenizer.train(["<|user|> <|end|> </s>"], 300))
    tokens = domain.encode([Message("user", "<|user|><|end|>"), Message("assistant", "<|end|>")])
    assert (tokens == domain.eos_id).sum() == 1
    special = tokens >= domain.tokenizer.vocab_size
    assert special.sum() == 3
    assert domain.answer(tokens[-4:]) in "<|end|>"
    assert domain.spec(9).fingerprint == domain.tokenizer.fingerprint
    assert domain.spec(9).eos_id == domain.spec(9).vocab_size - 1
    assert set(domain.never_drawn) == {domain.vocab_size - n for n in (2, 3, 4)}


def test_the_template_is_in_the_checkpoint() -> None:
    own = ALPACA | {"user_template": "<|im_start|>user\n{content}<|im_end|>\n"}
    domain = ConversationDomain(ByteTokenizer(), **own)
    copy = checkpoints.build(json.loads(json.dumps(checkpoints.describe(domain))), Domain)
    assert isinstance(copy, ConversationDomain)
    assert copy.template == domain.template
    assert list(copy.specials) == ["<|im_start|>", "<|im_end|>", END]
    assert torch.equal(copy.encode(CHAT), domain.encode(CHAT))


def test_words_are_joined_within_a_message_only() -> None:
    domain = ConversationDomain(SentenceTokenizer.train(["Sort the words a b"], min_count=1))
    row = domain.render([Message("user", "Sort the words"), Message("assistant", "a b")])
    assert domain.decode(row.tokens) == "<|user|>Sort the words<|assistant|>a b<|end|>"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"assistant_template": "<|a|>"},
            "data.assistant_template: '<|a|>' has no single place for",
        ),
        ({"user_template": "{content}{content}"}, "data.user_template: .* has no single place"),
        (
            {"assistant_template": "<|a|>{content}"},
            "does not end the answer; write {content}<|end|>",
        ),
        ({"assistant_template": "<|a|>{content} <|end|>"}, "does not end the answer"),
        ({"assistant_template": "<|end|>{content}<|end|>"}, "does not end the answer"),
        ({"assistant_template": "{content}<|end|>"}, "has nothing before the answer"),
        ({"user_template": "{content}<|end|>"}, "has <|end|>, which ends an answer; omit it"),
    ],
)
def test_a_template_without_its_places_is_refused(given: dict[str, str], message: str) -> None:
    pattern = message.replace("|", r"\|").replace("{", r"\{")
    with pytest.raises(UserError, match=pattern):
        ConversationDomain(ByteTokenizer(), **given)


def test_a_template_that_the_tokenizer_cannot_spell_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.user_template: '### ':"):
        ConversationDomain(CharacterTokenizer("abc"), user_template="### {content}")


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ("a", r"messages\[0\].role: 'assistant' begins the conversation; give a message of 'user'"),
        ("sa", r"messages\[1\].role: 'assistant' follows 'system'"),
        ("uu", r"messages\[1\].role: 'user' follows 'user'; give a message of 'assistant'"),
        ("uaa", r"messages\[2\].role: 'assistant' follows 'assistant'"),
        ("us", r"messages\[1\].role: a system message comes first only"),
        ("ut", r"messages\[1\].role: 'tool' is not known; choose system, user, assistant"),
        ("", "messages: there are none"),
        ("uae", r"messages\[2\].content: it is empty"),
    ],
)
def test_speakers_take_turns(roles: str, message: str) -> None:
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "e": "user"}
    messages = [Message(names[role], " \n" if role == "e" else "x") for role in roles]
    with pytest.raises(UserError, match=message):
        ConversationDomain(ByteTokenizer()).encode(messages)
    with pytest.raises(UserError, match="an answer follows a user's message"):
        ConversationDomain(ByteTokenizer()).prompt(CHAT)
