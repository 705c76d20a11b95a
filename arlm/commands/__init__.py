"""Verbs that use a checkpoint: one file each, imported only when called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from arlm.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse that takes no abbreviations and raises its errors as one line."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"arlm {verb}", description=description, allow_abbrev=False)
        self.verb = verb

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `arlm {self.verb} --help`")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse, naming the nearest option for an unknown one."""
        known, unknown = self.parse_known_args(arguments)
        if unknown:
            raise UserError(
                unknown_option(unknown[0], list(self._option_string_actions), self.verb)
            )
        return known


def unknown_option(option: str, known: Sequence[str], verb: str) -> str:
    """One line for an option that does not exist."""
    import difflib

    near = difflib.get_close_matches(option.partition("=")[0], known, n=1)
    meant = f"did you mean {near[0]}?" if near else f"see `arlm {verb} --help`"
    return f"{option}: unknown option; {meant}"


def shows_progress() -> bool:
    """A bar is for a terminal; a log would keep every state of it."""
    return sys.stderr.isatty()
