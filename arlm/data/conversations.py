"""Conversations as rows of different lengths, and the files that they are read from.

A line of a file (JSON lines, plain or gz) is one conversation, in one of two forms:

    {"prompt": "SORT 312", "output": "123"}
    {"messages": [{"role": "user", "content": "SORT 312"}, {"role": "assistant", "content": "123"}]}

The first one may have a "system" too; other names are not read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import Batch
from arlm.data.dataset import Rows, TokenDataset
from arlm.data.text_files import named_lines
from arlm.domains import ConversationDomain
from arlm.domains.conversation import Conversation, Message, Rendered, check_conversation
from arlm.errors import UserError

FORMS = (
    '{"prompt": "...", "output": "..."} or {"messages": [{"role": "user", "content": "..."}, ...]}'
)


class Conversations(TokenDataset):
    """Conversations of different lengths; a batch is padded to its longest, and padding is not scored.

    Args:
        rows: each conversation, at least one.
        domain: of the conversations.
    """

    def __init__(self, rows: Sequence[Rendered], domain: ConversationDomain) -> None:
        self.rows, self.domain = rows, domain
        self.lengths = torch.tensor([len(row.tokens) for row in rows])
        self._first = self.lengths.cumsum(0) - self.lengths

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Rows) -> Batch:
        chosen = [self.rows[i] for i in rows.chosen.tolist()]
        tokens = pad_sequence([row.tokens for row in chosen], True, self.domain.eos_id)
        scored = pad_sequence([row.scored for row in chosen], True, False)
        return Batch(tokens, scored, self.domain.units(tokens))

    def positions(self, rows: Rows) -> Tensor:
        longest = int(self.lengths[rows.chosen].max())
        return self._first[rows.chosen, None] + torch.arange(longest)


def conversations_in(name: str, field: str = "FILE", empty: bool = False) -> list[list[Message]]:
    """The conversations of a file, each of which ends with an answer; "-" is the standard input.

    Args:
        name: of the file.
        field: of the file, for errors.
        empty: whether answers may be empty, as those of a network may be.

    Raises:
        UserError: it names the file, the line and the field.
    """
    found = []
    for where, line in named_lines(name):
        try:
            found.append(conversation_of(line))
            check_answered(found[-1], empty)
        except UserError as error:
            raise UserError(f"{field}: {where}: {error}") from None
    if not found:
        raise UserError(f"{field}: '{name}' is empty; write a conversation on each line, {FORMS}")
    return found


def conversation_of(line: str) -> list[Message]:
    """The conversation of a line of JSON; see the module."""
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or "too deeply nested"
        place = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise UserError(f"it is no JSON ({reason}{place}); write {FORMS}") from None
    if not isinstance(value, dict):
        raise UserError(f"it is {_kind(value)}, not an object; write {FORMS}")
    if "messages" in value:
        messages = value["messages"]
        if not isinstance(messages, list):
            raise UserError(f"messages: it is {_kind(messages)}; give a list")
        found = [_message(entry, f"messages[{i}]") for i, entry in enumerate(messages)]
        check_conversation(found)
        return found
    names = {"system": "system", "prompt": "user", "output": "assistant"}
    found = []
    for name, role in names.items():
        if name not in value and name != "system":
            raise UserError(f"{name}: it is missing; write {FORMS}")
        if name in value:
            text = _text(value[name], name)
            if not text.strip():
                raise UserError(f"{name}: it is empty; give a text, or leave the line out")
            found.append(Message(role, text))
    return found


def check_answered(conversation: Conversation, empty: bool = False) -> None:
    """Refuse a conversation that does not end with an answer, or has an empty one."""
    for i, message in enumerate(conversation):
        if not (empty or message.content.strip()):
            raise UserError(
                f"messages[{i}].content: it is empty; give a text, or leave the conversation out"
            )
    if conversation[-1].role != "assistant":
        last = len(conversation) - 1
        raise UserError(
            f"messages[{last}].role: {conversation[-1].role!r} ends the conversation; end it with the answer of the "
            "'assistant', which is what is learnt"
        )


def _message(entry: Any, field: str) -> Message:
    if not isinstance(entry, dict):
        raise UserError(
            f'{field}: it is {_kind(entry)}; write {{"role": "user", "content": "..."}}'
        )
    for name in ("role", "content"):
        if name not in entry:
            raise UserError(f"{field}.{name}: it is missing; write a role and a content")
    return Message(*(_text(entry[name], f"{field}.{name}") for name in ("role", "content")))


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{field}: it is {_kind(value)}; give a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{field}: character {error.start + 1} is half of a surrogate pair; write the whole character"
        ) from None
    return value


def _kind(value: Any) -> str:
    """What a value of JSON is, for messages."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a truth value",
        type(None): "null",
    }
    return names.get(type(value), "a number")
