"""Prompts from a file or from the standard input: one on each line, or JSON objects with a "prompt"."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from arlm.errors import UserError

FIELD = "--prompt-file"


def prompts_in(name: str) -> list[str]:
    """The prompts of a file; of "-", the standard input.

    Lines are JSON objects, {"prompt": "..."}, in a file whose name ends in .jsonl, and in an input whose first line is
    such an object; their prompts may have line breaks. Other lines are prompts themselves.
    """
    if name == "-":
        try:
            text = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{FIELD}: the standard input is not UTF-8 at byte {error.start}; convert it to UTF-8"
            ) from None
        lines = [line.strip() for line in text.removesuffix("\n").split("\n")] if text else []
        where = "the standard input"
    else:
        from arlm.data.pairs import lines_of  # late: --help needs no torch

        lines, where = lines_of(Path(name), FIELD), f"'{name}'"
    if not lines:
        raise UserError(f"{FIELD}: {where} is empty; write one prompt on each line")
    as_json = name.endswith(".jsonl") or (name == "-" and _prompt(lines[0]) is not None)
    if not as_json:
        return lines
    found = []
    for number, line in enumerate(lines, start=1):
        prompt = _prompt(line)
        if prompt is None:
            raise UserError(
                f'{FIELD}: line {number} of {where} is no JSON object with a "prompt"; '
                'write for example {"prompt": "The "}'
            )
        found.append(prompt)
    return found


def _prompt(line: str) -> str | None:
    """The prompt of a JSON object; None for another line."""
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    prompt = value.get("prompt") if isinstance(value, dict) else None
    return prompt if isinstance(prompt, str) else None
