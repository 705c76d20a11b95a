"""Texts of networks on a terminal, which obeys the control characters in them."""

from __future__ import annotations

import sys

# All but line breaks and tabs.
CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)
}


def shown(text: str) -> str:
    """The text as it is printed: on a terminal, control characters are written as \\x1b; elsewhere it is unchanged."""
    return text.translate(CONTROLS) if sys.stdout.isatty() else text
