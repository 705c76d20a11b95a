"""Verbs that use a checkpoint: one file each, imported only when called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from arlm.errors import UserError
from arlm.messages import nearest


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
            option = unknown[0].partition("=")[0]
            mend = nearest(option, self._option_string_actions, f"see `arlm {self.verb} --help`")
            raise UserError(f"{option}: unknown option; {mend}")
        return known


def shows_progress() -> bool:
    """A bar is for a terminal; a log would keep every state of it."""
    return sys.stderr.isatty()


def bar(what: str, unit: str, total: int) -> Any:
    """A bar of work done per second, for a terminal: tqdm's, to be used in a `with`."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, desc=what, disable=not shows_progress())
