"""Conversations as tokens of a tokenizer and of a template; only what the assistant says is scored.

    messages    user: SORT 312              assistant: 123
    template    <|user|>{content}           <|assistant|>{content}<|end|>
    tokens      <|user|> S O R T _ 3 1 2    <|assistant|> 1 2 3 <|end|>
    scored      .        . . . . . . . .    .             x x x x

Each part (a text of the template, a message) is encoded by itself, so the tokens of a prompt are the same in training
and at inference, whatever the tokenizer would join across the seam.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.core import Spec
from arlm.domains.base import Domain
from arlm.errors import UserError
from arlm.tokenizers import Tokenizer

ROLES = ("system", "user", "assistant")
END = "<|end|>"
SYSTEM = "<|system|>{content}"
USER = "<|user|>{content}"
ASSISTANT = f"<|assistant|>{{content}}{END}"
PLACE = "{content}"
_PARTS = re.compile(r"(<\|\w+\|>|\{content\})")


class Message(NamedTuple):
    """What one speaker says."""

    role: str  # "system", "user" or "assistant"
    content: str


Conversation = Sequence[Message]


class Rendered(NamedTuple):
    """A conversation as a row."""

    tokens: Tensor  # (T,) int64
    scored: Tensor  # (T,) bool: the assistant's messages, each with its end


class ConversationDomain(Domain):
    """A conversation <-> tokens.

    The vocabulary has the tokenizer's tokens first, then one for each `<|name|>` of the template, which no message can
    hold, and the end token last. The tokenizer's fingerprint is that of the spec, so a network of texts can be trained
    further on conversations.

    Args:
        tokenizer: of the messages.
        system_template, user_template, assistant_template: how a message of each role is written: text, special tokens
            `<|name|>`, and one place `{content}`. The assistant's has `<|end|>` right after it.

    Raises:
        UserError: a template has no such form, or the tokenizer cannot spell its text.
    """

    unit = "byte"
    view = "arlm.reports.conversation_view.ConversationView"

    def __init__(
        self,
        tokenizer: Tokenizer,
        system_template: str = SYSTEM,
        user_template: str = USER,
        assistant_template: str = ASSISTANT,
    ) -> None:
        self.tokenizer = tokenizer
        texts = (system_template, user_template, assistant_template)
        check_templates(*texts)
        self.template = dict(zip(ROLES, texts, strict=True))
        specials = dict.fromkeys(
            part
            for text in self.template.values()
            for part in _PARTS.split(text)
            if part.startswith("<|") and part != END
        )
        names = [*specials, END]
        self.specials = {name: tokenizer.vocab_size + i for i, name in enumerate(names)}
        self.vocab_size = tokenizer.vocab_size + len(names)
        self.eos_id = self.vocab_size - 1
        self._parts = {role: self._encoded(role) for role in ROLES}
        # The end of an answer counts as one byte, the newline; what is never scored has none.
        sizes = [0.0] * len(specials) + [1.0]
        self._bytes = torch.cat([tokenizer.token_bytes, torch.tensor(sizes)])

    @property
    def text_tokenizer(self) -> Tokenizer:
        return self.tokenizer

    def spec(self, length: int) -> Spec:
        """The spec of rows of up to `length` tokens."""
        return Spec(
            *(self.vocab_size, (length,)),
            eos_id=self.eos_id,
            unit=self.unit,
            fingerprint=self.tokenizer.fingerprint,
        )

    def encode(self, native: Conversation | str) -> Tensor:
        """A conversation -> tokens (T,); a text is what a user says, and the beginning of the answer."""
        if isinstance(native, str):
            return self.prompt([Message("user", native)])
        return self.render(native).tokens

    def render(self, conversation: Conversation, strict: bool = False) -> Rendered:
        """A conversation as a row, with what is scored.

        Args:
            conversation: messages; see `check_conversation`.
            strict: refuse unknown text, even if the tokenizer has a token for it.
        """
        check_conversation(conversation)
        tokens, scored = [], []
        for message in conversation:
            before, after = self._parts[message.role]
            content = self.tokenizer.encode(message.content, strict)
            answer = message.role == "assistant"
            # The end token is the first of what follows an answer.
            for part, learnt in ((before, 0), (content, len(content)), (after, 1)):
                tokens.append(part)
                scored.append(torch.arange(len(part)) < (learnt if answer else 0))
        return Rendered(torch.cat(tokens), torch.cat(scored))

    def prompt(self, conversation: Conversation, strict: bool = False) -> Tensor:
        """A conversation that a user ends -> tokens (P,), up to where the assistant's answer begins."""
        if not conversation or conversation[-1].role != "user":
            raise UserError("messages: an answer follows a user's message; end with one")
        return torch.cat([self.render(conversation, strict).tokens, self._parts["assistant"][0]])

    @property
    def closing(self) -> Tensor:
        """What the template writes after an answer, (n,): the end token first."""
        return self._parts["assistant"][1]

    @property
    def never_drawn(self) -> list[int]:
        """The tokens that no answer has: special ones other than the end."""
        return [token for token in self.specials.values() if token != self.eos_id]

    def answers(self, rendered: Rendered) -> Iterator[tuple[int, int]]:
        """Where each answer of a row begins, and where it ends, its end token included."""
        first = 0
        for scored, group in groupby(rendered.scored.tolist()):
            size = len(list(group))
            if scored:
                yield first, first + size
            first += size

    def decode(self, tokens: Tensor) -> str:
        """Tokens (T,) -> the text as the template writes it, special tokens as `<|name|>`."""
        names, text = list(self.specials), []
        for special, group in groupby(tokens.tolist(), lambda t: t >= self.tokenizer.vocab_size):
            part = list(group)
            if special:
                text += [names[token - self.tokenizer.vocab_size] for token in part]
            else:
                text.append(self.tokenizer.decode(torch.tensor(part)))
        return "".join(text)

    def answer(self, tokens: Tensor) -> str:
        """Tokens (T,) that follow a prompt -> the text before the first special token."""
        special = (tokens >= self.tokenizer.vocab_size).cumsum(0)
        return self.tokenizer.decode(tokens[special == 0])

    def units(self, tokens: Tensor) -> Tensor:
        return self._bytes.to(tokens.device)[tokens]

    def _encoded(self, role: str) -> tuple[Tensor, Tensor]:
        """What the template writes before and after a role's message, (n,) each."""
        found: list[list[Tensor]] = [[]]
        for part in filter(None, _PARTS.split(self.template[role])):
            if part == PLACE:
                found.append([])
            elif part in self.specials:
                found[-1].append(torch.tensor([self.specials[part]]))
            else:
                try:
                    found[-1].append(self.tokenizer.encode(part))
                except UserError as error:
                    raise UserError(f"data.{role}_template: {part!r}: {error}") from None
        before, after = (torch.cat([torch.empty(0, dtype=torch.long), *side]) for side in found)
        return before, after


def check_templates(system: str, user: str, assistant: str) -> None:
    """Refuse templates without one place for the message, or of an answer without an end."""
    for role, text in zip(ROLES, (system, user, assistant), strict=True):
        _check_template(role, text)


def texts_of(templates: Sequence[str]) -> list[str]:
    """What templates write as text, around messages and special tokens."""
    parts = (part for template in templates for part in _PARTS.split(template))
    return [part for part in parts if part and part != PLACE and not part.startswith("<|")]


def _check_template(role: str, text: str) -> None:
    field = f"data.{role}_template"
    example = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}[role]
    if text.count(PLACE) != 1:
        raise UserError(
            f"{field}: {text!r} has no single place for the message; write {PLACE} once, such as {example!r}"
        )
    if role != "assistant":
        if END in text:
            raise UserError(f"{field}: {text!r} has {END}, which ends an answer; omit it")
        return
    if text.count(END) != 1 or f"{PLACE}{END}" not in text:
        raise UserError(
            f"{field}: {text!r} does not end the answer; write {PLACE}{END}, and {END} nowhere else"
        )
    if text.startswith(PLACE):
        raise UserError(
            f"{field}: {text!r} has nothing before the answer, so its beginning cannot be told from the message "
            f"before; write such as {example!r}"
        )


def check_conversation(conversation: Conversation) -> None:
    """Refuse a conversation in which user and assistant do not take turns, or a message other than an answer is empty.

    An optional system message comes first, then a user's, then the assistant's, and so on.

    Raises:
        UserError: it names the message, such as messages[2].role.
    """
    if not conversation:
        raise UserError("messages: there are none; give at least one of a user")
    expected = "user"
    for i, message in enumerate(conversation):
        role, content = message
        field = f"messages[{i}]"
        if role not in ROLES:
            raise UserError(f"{field}.role: {role!r} is not known; choose {', '.join(ROLES)}")
        if role != "assistant" and not content.strip():
            raise UserError(f"{field}.content: it is empty; give a text, or leave the message out")
        if role == "system" and i == 0:
            continue
        if role == "system":
            raise UserError(f"{field}.role: a system message comes first only; move it there")
        if role != expected:
            before = (
                "begins the conversation" if i == 0 else f"follows {conversation[i - 1].role!r}"
            )
            raise UserError(
                f"{field}.role: {role!r} {before}; give a message of {expected!r} there"
            )
        expected = "assistant" if role == "user" else "user"
