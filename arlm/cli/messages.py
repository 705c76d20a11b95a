"""Shorten the parsers' errors to one line: the field, the value and how to correct it."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable


def one_line(message: str, verb: str, options: Iterable[str]) -> str:
    """One line for an error of jsonargparse.

    Args:
        message: its message, of many lines.
        verb: the command that was called, such as "fit".
        options: all options of the command, such as "--trainer.max_epochs".
    """
    see = f"see `arlm {verb} --help`"
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        option = found[1].partition("=")[0]
        return f"{option}: unknown option; {nearest(option, options, see)}"
    if found := re.search(r"arguments are required: (.+)", message):
        missing = found[1].replace(f"{verb}.", "")
        return f"{missing}: missing; name a configuration with --config, or give them as options"
    if found := re.search(r"File does not exist: '(.+?)'", message):
        field = re.search(r'Parser key "(.+?)"', message)
        return f"{field[1] if field else 'config'}: '{found[1]}' does not exist; check the path"
    keys = ".".join(re.findall(r'Parser key "(.+?)"', message))
    if found := re.search(r"Option '(.+?)' is not accepted", message):
        accepted = _arguments_of(message)
        option = f"{keys}.{found[1]}" if keys else found[1]
        return f"{option}: unknown option; {nearest(found[1], accepted, see)}"
    if found := re.search(r"Expected a path but (.+?) either not accessible", message):
        return f"{keys}: '{found[1]}' is neither a file nor a class; check the path or the name"
    given = re.search(r"Got value: (\S+?)\.?(?:\s|$)", message)
    given = given or re.search(r"Given value: (.+?)\s*$", message)
    if keys and given:
        types = re.findall(r"Expected an? (?:<class ')?(?:typing\.)?([\w.]+(?:\[.+?\])?)", message)
        wanted = " or ".join(t.replace("Literal", "one of ") for t in types if t != "NoneType")
        return f"{keys}: {given[1]!r} does not fit; give {wanted or 'another value'} ({see})"
    return f"{message}; {see}"


def _arguments_of(message: str) -> list[str]:
    """Constructor arguments of the class that the message names."""
    found = re.search(r"class_path[ =]'([\w.]+)\.(\w+)'", message)
    if not found:
        return []
    import inspect  # late: `arlm --help` imports this module

    return list(inspect.signature(getattr(importlib.import_module(found[1]), found[2])).parameters)


def nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    """Suggest the known word most similar to an unknown one; `otherwise` if there is none."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise
