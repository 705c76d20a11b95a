"""The option --watermark of `sample` and `detect`, which both spell alike."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from arlm.errors import UserError

if TYPE_CHECKING:
    from arlm.sampling import Noise, Watermark
    from arlm.sampling.processors import LogitsProcessor

SPELLINGS = '"gumbel:key=7", "green_list=2:gamma=0.25:key=7" or "synth_id:key=7"'


def add_watermark_option(group: Any, what: str, required: bool = False) -> None:
    """Add the option; `what` begins its help."""
    group.add_argument("--watermark", required=required, help=f"{what}: {SPELLINGS}")


def watermark_of(text: str) -> Watermark:
    """The watermark that --watermark spells, in the form of an item of --processors."""
    from arlm.sampling import GumbelWatermark, Watermark  # late: --help needs no torch
    from arlm.sampling.processors import all_processors, parse_processors

    kinds = {GumbelWatermark.name: GumbelWatermark} | all_processors()
    known = {name: kind for name, kind in kinds.items() if issubclass(kind, Watermark)}
    found = parse_processors(text, known=known, option="--watermark")
    if len(found) != 1:
        raise UserError(f"--watermark: {text!r} names {len(found)}; give one, such as {SPELLINGS}")
    if not isinstance(found[0], Watermark):
        raise UserError("--watermark: keep_end is for truncations; omit it")
    return found[0]


def watermark_name(text: str) -> str:
    """The name of the watermark that --watermark spells."""
    return text.partition(":")[0].partition("=")[0].strip()


def marked(
    options: argparse.Namespace, processors: Sequence[LogitsProcessor]
) -> tuple[tuple[LogitsProcessor, ...], Noise | None]:
    """The processors of a draw with that of the watermark as the last, and the noise of one that is a noise."""
    from arlm.sampling import Noise
    from arlm.sampling.processors import LogitsProcessor
    from arlm.sampling.processors.greedy import Greedy

    if not options.watermark:
        return tuple(processors), None
    mark: object = watermark_of(options.watermark)
    if options.greedy or Greedy() in processors:
        what = "--greedy" if options.greedy else "greedy before it"
        raise UserError(
            f"--watermark: {what} leaves it no choice; omit one of them, or write "
            '--processors "green_list=2:key=7,greedy"'
        )
    if isinstance(mark, LogitsProcessor):
        return (*processors, mark), None
    assert isinstance(mark, Noise)
    return tuple(processors), mark
