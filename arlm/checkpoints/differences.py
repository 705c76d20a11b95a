"""What differs between two descriptions, for messages."""

from __future__ import annotations

from reprlib import repr as shortened
from typing import Any


def differences(saved: Any, given: Any, name: str = "") -> str:
    """The entries of two descriptions (`describe`) that differ, such as "width 128, not 64".

    Args:
        saved: the description in a checkpoint.
        given: the other one.
        name: of the entry that both are; empty for the whole.
    """
    if saved == given:
        return ""
    if not (isinstance(saved, dict) and isinstance(given, dict)):
        return f"{name} {_shown(saved)}, not {_shown(given)}"
    if saved.get("class_path") != given.get("class_path"):
        classes = (str(d.get("class_path", "none")).rpartition(".")[2] for d in (saved, given))
        return f"{name} {{}}, not {{}}".format(*classes).strip()
    parts = []
    for key in sorted({*saved, *given}):
        inner = name if key == "init_args" else f"{name}.{key}".strip(".")
        if key in saved and key in given:
            parts.append(differences(saved[key], given[key], inner))
        else:
            parts.append(
                f"{inner} {_shown(saved.get(key, 'absent'))}, not {_shown(given.get(key, 'absent'))}"
            )
    return "; ".join(filter(None, parts))


def _shown(value: Any) -> str:
    return shortened(value) if isinstance(value, dict | list | str) else str(value)
