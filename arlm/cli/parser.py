"""Verbs that use a checkpoint: one file each, imported only when called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from arlm.cli.messages import nearest
from arlm.errors import UserError

READING = ("length", "reading", "stride", "lanes", "overlap")  # of TextDataModule

if TYPE_CHECKING:
    from arlm.checkpoints import Loaded
    from arlm.data.module import TokenDataModule


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


def with_data(path: str, fragment: str | None = None) -> tuple[Loaded, TokenDataModule]:
    """A checkpoint and its data, ready to be read.

    Args:
        path: a .ckpt file, or the folder of a run.
        fragment: a YAML of `configs/data/` to read instead, with the checkpoint's own tokenizer and
            its way of reading.
    """
    import yaml

    from arlm.checkpoints import build, load
    from arlm.data.text_files import read_text

    loaded = load(path)
    description = {k: v for k, v in loaded.data.items() if k != "provenance"}
    if fragment is not None:
        from pathlib import Path

        content = yaml.safe_load(read_text(Path(fragment), "--data"))
        if not isinstance(content, dict) or "class_path" not in content:
            raise UserError(
                f"--data: '{fragment}' names no class_path; give a file like configs/data/"
            )
        ours = description["init_args"]
        description = {"init_args": {}, **content}
        if "reading" in ours:  # the network goes on reading as it did
            description["init_args"] |= {name: ours[name] for name in READING}
    module = build(description)
    if fragment is not None:
        ours, theirs = type(loaded.domain).__name__, type(module.domain).__name__
        if ours != theirs:
            raise UserError(f"--data: '{fragment}' is for {theirs}, but '{path}' is of {ours}")
    module.domain = loaded.domain
    longest, length = loaded.net.max_length, module.spec.length
    if longest is not None and length > longest:
        raise UserError(
            f"data.length: rows of {length} tokens do not fit '{path}', whose network holds {longest}"
        )
    module.prepare_data()
    provenance = loaded.data["provenance"]
    if fragment is None and module.provenance != provenance:
        told = f"note: the data differs from that of training, which was {provenance}"
        print(told, file=sys.stderr)
    return loaded, module
