"""Values of fields on the command line: numbers, true and false, lists of tokens in brackets, and texts in quotes."""

from __future__ import annotations

import json
import re
from types import UnionType
from typing import Any, get_args, get_origin

from arlm.errors import UserError

QUOTED = r'"(?:[^"\\]|\\.)*"'
PAIR = re.compile(rf"(?:{QUOTED}|[^,])+")
PAIR_PARTS = re.compile(rf"\s*({QUOTED}|[^:]+?)\s*:([^:]+)")
BRACKETS = {"[": 1, "{": 1, "]": -1, "}": -1}


def split(option: str, text: str, separator: str) -> list[str]:
    """Split at the separator, a character, where it is outside of brackets and of the texts within them."""
    parts, depth, quoted, escaped = [""], 0, False, False
    for character in text:
        if character == '"' and depth and not escaped:
            quoted = not quoted
        escaped = quoted and character == "\\" and not escaped
        depth += 0 if quoted else BRACKETS.get(character, 0)
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
        if depth < 0:
            break
    if depth:
        what, example = ("quotes", '["a","b"]') if quoted else ("brackets", "[1,2]")
        raise UserError(
            f"{option}: the {what} in {text!r} do not match; write for example {example}"
        )
    return parts


def read_value(owner: str, field: str, text: str, kind: Any) -> Any:
    """The value of a field as its type: bool, int, float, str, dict[int, float], tuple[int, ...] or a tuple of those.

    Where the type allows a str in place of an int or of a tuple, a text in quotes is one.

    Args:
        owner: the option and the name of what has the field, for messages.
        field: its name.
        text: the value.
        kind: its type.
    """
    what, example = example_of(kind)
    if kind is bool:
        if text not in ("true", "false"):
            raise UserError(f"{owner}:{field} is {text!r}; write true or false")
        return text == "true"
    try:
        if get_origin(kind) is dict:
            return _numbers(f"{owner}:{field}", text, str in _members(kind))
        if get_origin(kind) is tuple:
            return _tokens(json.loads(text), _nested(kind), str in _members(kind))
        return kind(text)
    except UserError:
        raise
    except (TypeError, ValueError, RecursionError):  # a TypeError for a field that is no number
        raise UserError(
            f"{owner} needs {what} for {field}, not {text!r}; write for example {field}={example}"
        ) from None


def example_of(kind: Any) -> tuple[str, str]:
    """What a field of this type needs, in words, and an example."""
    texts = str in _members(kind)
    if get_origin(kind) is dict:
        return "numbers of tokens", '{7:-2.5,"a":-inf}' if texts else "{7:-2.5,9:-inf}"
    if get_origin(kind) is tuple and _nested(kind):
        return "lists of tokens", '["a",[1,2]]' if texts else "[[1,2],[3]]"
    if get_origin(kind) is tuple:
        return "a list of tokens", '["a",2]' if texts else "[1,2]"
    return "a number", "1"


def _members(kind: Any) -> tuple[Any, ...]:
    """The types of the elements of a tuple, or of the keys of a dict."""
    first = (get_args(kind) or (None,))[0]
    return get_args(first) if isinstance(first, UnionType) else (first,)


def _nested(kind: Any) -> bool:
    return any(get_origin(member) is tuple for member in _members(kind))


def _numbers(owner: str, text: str, texts: bool) -> dict[str | int, float]:
    """A number for each token: '{7:-2.5,"a":-inf}'."""
    if not re.fullmatch(r"\{.*\}", text, re.DOTALL):
        raise ValueError
    found: dict[str | int, float] = {}
    parts = PAIR.findall(text[1:-1])
    if ",".join(parts) != text[1:-1]:  # one is empty
        raise ValueError
    for part in parts:
        match = PAIR_PARTS.fullmatch(part)
        if not match:
            raise ValueError
        key = json.loads(match[1]) if match[1].startswith('"') else int(match[1])
        if isinstance(key, str) and not texts:
            raise ValueError
        if key in found:
            raise UserError(f"{owner}: {match[1]} has two values; give one")
        found[key] = float(match[2])
    return found


def _tokens(value: Any, nested: bool, texts: bool) -> tuple:
    """Lists of integers as tuples; with `texts`, strings stay as they are."""
    if not isinstance(value, list):
        raise ValueError
    if nested:
        return tuple(
            each if texts and isinstance(each, str) else _tokens(each, False, False)
            for each in value
        )
    if not all(type(each) is int or (texts and isinstance(each, str)) for each in value):
        raise ValueError
    return tuple(value)
