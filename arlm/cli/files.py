"""Samples that `arlm sample` writes to files, such as pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlm.cli.parser import bar
from arlm.errors import require

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor
    from arlm.reports.view import View
    from arlm.sampling.processors import LogitsProcessor

MOST = 10**4  # samples in pictures or files


def files(
    options: argparse.Namespace,
    net: Autoregressor,
    view: View,
    out: Path,
    processors: Sequence[LogitsProcessor],
    sweeps: dict[str, LogitsProcessor],
) -> int:
    """Draw samples, write them to files and print the paths; returns the number of tokens drawn."""
    from arlm.inference.capacity import check_capacity
    from arlm.sampling import class_count, class_labels

    most = "since one picture shows them, or there is a file of each"
    require(options.n <= MOST, "-n", options.n, f"choose at most {MOST}, {most}")
    positions = net.spec.length if options.decoding == "fixed_point" else 1
    check_capacity(net, options.n, net.spec.length, "-n", options.n, positions)
    context = class_labels(net, options.label, options.n)
    forced = view.forced(vars(options))
    if forced is not None:
        say_what_is_not_read(forced)
        forced = forced.expand(options.n, -1)
    count = options.n * max(1, len(sweeps))
    with bar("sampling", "tok", net.spec.length * count) as progress:

        def run(more: Sequence[LogitsProcessor]) -> Tensor:
            return rows(options, net, [*processors, *more], forced, context, progress)

        drawn = {name: run([each]) for name, each in sweeps.items()} or {"": run([])}
    # A column for each class, since labels come in turn.
    columns = class_count(net.spec) or None if options.label is None else None
    print(*view.write(drawn, out, columns, vars(options)), sep="\n")
    tokens = next(iter(drawn.values()))
    if options.gif:
        given = None if forced is None else forced >= 0
        print(view.animate(tokens, given, Path(options.gif)))
    return sum(count_drawn(rows, net.spec.eos_id) for rows in drawn.values())


def count_drawn(tokens: Tensor, eos_id: int | None) -> int:
    """Tokens of rows (n, T) up to the end token of each."""
    ends = tokens == (-1 if eos_id is None else eos_id)
    return int((ends.cumsum(1) - ends.long() == 0).sum())


def rows(
    options: argparse.Namespace,
    net: Autoregressor,
    processors: Sequence[LogitsProcessor],
    forced: Tensor | None,
    context: Tensor | None,
    progress: Any,
) -> Tensor:
    """Rows of tokens (n, T) of the network's own length."""
    from arlm.sampling import fixed_point, generate, row_seeds

    result: Any = (fixed_point if options.decoding == "fixed_point" else generate)(
        net,
        row_seeds(options.seed, options.n),
        net.spec.length,
        processors=processors,
        forced=forced,
        context=context,
        noise=options.noise,
        progress=lambda positions: progress.update(positions * options.n),
    )
    if options.decoding == "fixed_point":
        print(f"{result.passes} passes for {result.tokens.shape[1]} positions", file=sys.stderr)
    return result.tokens.cpu()


def say_what_is_not_read(forced: Tensor) -> None:
    """Note on stderr that tokens which are given after drawn ones do not change those."""
    given = forced[0] >= 0
    late = int((given & ((~given).cumsum(0) > 0)).sum())
    if late:
        print(
            f"note: {late} of the {int(given.sum())} given tokens come after drawn ones in the order of the tokens; "
            "what is drawn before a given token does not depend on it",
            file=sys.stderr,
        )
