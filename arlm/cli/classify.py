"""`arlm classify RUN [FILE ...]`: the class of each line, or its value, with probabilities."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, add_run_options, open_network, print_json
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from torch import Tensor

MOST = 10**6  # lines that are classified together


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse and check the options."""
    parser = Parser("classify", "The class of each text, or its value, with probabilities.")
    add_run_options(parser)
    parser.add_argument(
        "files",
        nargs="*",
        default=["-"],
        metavar="FILE",
        help="files with one example a line; several texts of an example, such as premise and hypothesis, or a question "
        "and its choices, have tabs between them; - is the standard input (default)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=256,
        help="lines that are classified together (default 256)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line for each example: its texts, and the probability of each class",
    )
    options = parser.parse(arguments)
    size = options.batch_size
    require(1 <= size <= MOST, "--batch-size", size, f"choose 1 to {MOST}")
    return options


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    options = parse(arguments)
    with quick_imports():  # late: --help and errors need no torch
        from arlm.inference.classification import log_prob_of
        from arlm.reports.view import view_of

    loaded = open_network(options)
    net = loaded.net
    domain: Any = loaded.domain
    view: Any = view_of(domain)
    view.check_verb("classify", options.run)
    lines = examples(options.files, net, domain)
    empty = True
    for batch in chunks(lines, options.batch_size):
        empty = False
        found = log_prob_of(net, domain, [tokens for _, tokens in batch])
        for (texts, _), log_prob in zip(batch, found, strict=True):
            if options.json:
                print_json({"texts": texts} | view.answer(log_prob))
            else:
                print(view.summary(log_prob))
    if empty:
        raise UserError("FILE: it is empty; give one example a line")


def examples(files: Sequence[str], net: Any, domain: Any) -> Iterator[tuple[list[str], Tensor]]:
    """The texts of each line of the files, and their tokens (K, S)."""
    from arlm.data.text_files import named_lines
    from arlm.inference.classification import encoded

    for file in files:
        if file != "-" and not os.path.lexists(file):
            raise UserError(
                f"FILE: {file!r} does not exist; give a file with one example a line, or pipe lines in: "
                "echo TEXT | arlm classify RUN"
            )
        for name, line in named_lines(file):
            texts = line.rstrip("\r").split("\t") if domain.texts > 1 else [line]
            yield texts, encoded(net, domain, texts, name)


def chunks(
    lines: Iterator[tuple[list[str], Tensor]], size: int
) -> Iterator[list[tuple[list[str], Tensor]]]:
    """Lines, `size` at a time; those before one that is refused are given first."""
    refusal, done = None, False
    while not done and refusal is None:
        batch: list[tuple[list[str], Tensor]] = []
        try:
            while len(batch) < size:
                batch.append(next(lines))
        except StopIteration:
            done = True
        except UserError as error:
            refusal = error
        if batch:
            yield batch
    if refusal is not None:
        raise refusal
