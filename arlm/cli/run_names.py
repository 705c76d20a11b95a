"""The name of a run: that of its first configuration, and of what was changed in its network or its data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from arlm.checkpoints.choose import NEUTRAL
from arlm.errors import UserError

LONGEST = 100  # characters of a name; a file system takes 255 bytes
PARTS = ("data", "model.net")


def given_options(arguments: Iterable[str]) -> list[tuple[str, str]]:
    """Options and their values, in order: `--a b --c=d` is [("a", "b"), ("c", "d")]."""
    found: list[tuple[str, str]] = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name.startswith("--") or name == "-c":
            found.append(("config" if name == "-c" else name.removeprefix("--"), value))
        elif found:
            name, value = found[-1]
            found[-1] = name, f"{value} {argument}".strip()
    return found


def may_rename(options: Iterable[tuple[str, str]]) -> bool:
    """Whether options other than the first configuration may change network or data."""
    names = [name for name, _ in options]
    return names.count("config") > 1 or any(_part(name) for name in names)


def run_name(
    options: Iterable[tuple[str, str]], base: Mapping[str, Any] | None, final: Mapping[str, Any]
) -> str:
    """The name of a run from its command line.

    Args:
        options: all options, in order.
        base: what the first configuration says by itself, nested: {"data": ..., "model": {"net": ...}}; None if
            it is no whole run, so that the name says all that was added.
        final: what the run itself says, with all options, nested alike.

    Returns:
        the stem of the first configuration; if network or data differ from it, followed by what was changed,
        such as `docs_lstm-text_file-path_README-width_64`.
    """
    configs = [value for name, value in options if name == "config"]
    changes: dict[str, str] = {}
    for value in configs[1:]:
        if base is None or any(_differs(base, final, part) for part in PARTS):
            changes[f"config {value}"] = _word(value)
    for name, value in options:
        part = _part(name)
        if part is None or name.rpartition(".")[2] in NEUTRAL:
            continue
        if base is not None and not _differs(base, final, name):
            continue
        key = name.rpartition(".")[2]
        changes[name] = _word(value) if name == part else f"{key}_{_word(value)}"
    stem = [_word(configs[0])] if configs else []
    name = "-".join([*stem, *changes.values()]) or "run"
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def check_name(name: str) -> str:
    """Refuse a name that is no folder below the folder of runs."""
    path = Path(name)
    if not name.strip() or not path.parts or path.is_absolute() or ".." in path.parts:
        raise UserError(f"--run-name: {name!r} is no name; choose letters, digits, - and _")
    return name


def _part(name: str) -> str | None:
    """The part of the run that an option belongs to."""
    return next((p for p in PARTS if name == p or name.startswith(f"{p}.")), None)


def _differs(base: Mapping[str, Any], final: Mapping[str, Any], name: str) -> bool:
    return _neutral(_at(base, name)) != _neutral(_at(final, name))


def _at(values: Any, name: str) -> Any:
    """The value of an option such as "data.length", whether it is written with `init_args` or without."""
    for key in name.split("."):
        if not isinstance(values, Mapping):
            return None
        inner = values.get("init_args")
        values = (
            inner.get(key) if key not in values and isinstance(inner, Mapping) else values.get(key)
        )
    return values


def _neutral(value: Any) -> Any:
    """A value without the options that change neither the tokens nor how they are scored."""
    if not isinstance(value, Mapping):
        return value
    return {k: _neutral(v) for k, v in value.items() if k not in NEUTRAL and v is not None}


def _word(value: str) -> str:
    """A value as letters, digits, dots, - and _: the stem of a file, the last part of a class path."""
    paths = [Path(part).name for part in re.split(r"[\s,\[\]'\"{}]+", value) if part]
    words = []
    for part in paths:
        stem = re.sub(r"\.(ya?ml|txt|md|json|ckpt|gz|py)$", "", part)
        dotted = re.fullmatch(r"(arlm|datamodules)\.[\w.]+|[\w.]+\.[A-Z]\w*", stem)
        words.append(stem.rpartition(".")[2] if dotted else stem)
    return re.sub(r"[^\w.-]+", "_", "_".join(words)).strip("_.") or "none"
