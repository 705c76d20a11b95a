"""Values of fields on the command line: numbers, true and false, and lists of tokens in brackets."""

from __future__ import annotations

import json
import re
from typing import Any, get_args, get_origin

from arlm.errors import UserError

BRACKETS = {"[": 1, "{": 1, "]": -1, "}": -1}


def split(option: str, text: str, separator: str) -> list[str]:
    """Split at the separator, a character, where it is outside of brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += BRACKETS.get(character, 0)
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
        if depth < 0:
            break
    if depth:
        raise UserError(f"{option}: the brackets in {text!r} do not match; write for example [1,2]")
    return parts


def read_value(owner: str, field: str, text: str, kind: Any) -> Any:
    """The value of a field as its type: bool, int, float, str, dict[int, float], tuple[int, ...] or a tuple of those.

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
            return _numbers(text)
        if get_origin(kind) is tuple:
            return _tokens(json.loads(text), get_origin(get_args(kind)[0]) is tuple)
        return kind(text)
    except (TypeError, ValueError, RecursionError):  # a TypeError for a field that is no number
        raise UserError(
            f"{owner} needs {what} for {field}, not {text!r}; write for example {field}={example}"
        ) from None


def example_of(kind: Any) -> tuple[str, str]:
    """What a field of this type needs, in words, and an example."""
    if get_origin(kind) is dict:
        return "numbers of tokens", "{7:-2.5,9:-inf}"
    if get_origin(kind) is tuple:
        nested = get_origin(get_args(kind)[0]) is tuple
        return ("lists of tokens", "[[1,2],[3]]") if nested else ("a list of tokens", "[1,2]")
    return "a number", "1"


def _numbers(text: str) -> dict[int, float]:
    """A number for each token: "{7:-2.5,9:-inf}"."""
    if not re.fullmatch(r"\{.*\}", text):
        raise ValueError
    pairs = [part.split(":") for part in text[1:-1].split(",") if part]
    return {int(token): float(number) for token, number in pairs}


def _tokens(value: Any, nested: bool) -> tuple:
    """Lists of integers as tuples."""
    if not isinstance(value, list):
        raise ValueError
    if nested:
        return tuple(_tokens(each, False) for each in value)
    if not all(type(each) is int for each in value):
        raise ValueError
    return tuple(value)
