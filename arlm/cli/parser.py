"""Shared by the commands: an argument parser with one-line errors, progress bars, options of beam search."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from arlm.cli.messages import TYPES, nearest
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from arlm.checkpoints import Loaded
    from arlm.inference.runs import Run


LARGEST_PENALTY = 10  # of lengths: those in use are 0 to 2


class Parser(argparse.ArgumentParser):
    """argparse without abbreviated options and with one-line errors."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"arlm {verb}", description=description, allow_abbrev=False)
        self.verb = verb

    def error(self, message: str) -> NoReturn:
        see = f"see `arlm {self.verb} --help`"
        if found := re.fullmatch(r"argument (\S+): invalid (\w+) value: (.+)", message):
            raise UserError(
                f"{found[1]}: {found[3]} does not fit; give {TYPES.get(found[2], found[2])}"
            )
        if found := re.fullmatch(
            r"argument (\S+): invalid choice: (.+) \(choose from (.+)\)", message
        ):
            raise UserError(f"{found[1]}: {found[2]} is not known; choose {found[3]}")
        if found := re.fullmatch(r"argument (\S+): expected (one|at least one) argument", message):
            raise UserError(f"{found[1]}: its value is missing; {see}")
        if found := re.fullmatch(r"the following arguments are required: (.+)", message):
            raise UserError(f"{found[1]}: missing; {see}")
        raise UserError(f"{message}; {see}")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse; the error for an unknown option suggests a similar one."""
        known, unknown = self.parse_known_args(arguments)
        if unknown:
            option, see = unknown[0].partition("=")[0], f"see `arlm {self.verb} --help`"
            if not option.startswith("-"):
                mend = f"quote a value that has spaces in it, and {see}"
                raise UserError(f"{unknown[0]!r}: not expected here; {mend}")
            mend = nearest(option, self._option_string_actions, see)
            raise UserError(f"{option}: unknown option; {mend}")
        for action in self._actions:
            self._check(action, getattr(known, action.dest, None))
        return known

    def _check(self, action: argparse.Action, value: Any) -> None:
        """Refuse an empty value where it is no text to read, and an integer that no tensor holds."""
        name = (action.option_strings or [str(action.metavar or action.dest)])[0]
        for each in value if isinstance(value, list) else [value]:
            if each == "" and action.default != "":
                see = f"see `arlm {self.verb} --help`"
                raise UserError(f"{name}: its value is empty; give one, or omit it; {see}")
            if isinstance(each, int) and not -(2**63) <= each < 2**63:
                raise UserError(f"{name}: {each} does not fit; give a number of 64 bits")


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, which has no number for inf and nan: they are null."""
    print(json.dumps(finite(value), ensure_ascii=False, allow_nan=False))


def finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def bar(what: str, unit: str, total: int) -> Any:
    """A tqdm progress bar, shown on a terminal only, for use in a `with` statement."""
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, desc=what, disable=not sys.stderr.isatty())


def add_run_options(parser: Parser, several: bool = False) -> None:
    """Add the argument `run`, or `runs`, and the options that say how its network is loaded."""
    if several:
        parser.add_argument(
            "runs",
            nargs="+",
            help="checkpoints or folders of runs; NAME=RUN,RUN,... is one model with several seeds",
        )
    else:
        parser.add_argument("run", help="the folder or the name of a run, or a .ckpt file")
    group = parser.add_argument_group("loading the network")
    if not several:
        group.add_argument(
            "--adapter",
            help="a file of `arlm adapter`, for the run that is the base of the adapter",
        )
    group.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module, package or FILE.py whose classes the checkpoint may name, beside arlm's own; "
        "repeat the option for several",
    )
    group.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda or cuda:N; auto is the first GPU, or the CPU where there is none (default auto)",
    )
    group.add_argument(
        "--precision",
        default="32",
        choices=["32", "bf16", "16", "64"],
        help="number format of weights and features; log-probabilities are float32 or better (default 32)",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile scoring and decoding with torch.compile, which takes from 10 s to a minute at the start",
    )


def adapt(loaded: Loaded, options: argparse.Namespace) -> Loaded:
    """The loaded network with the adapter of `--adapter`, if it is given."""
    if getattr(options, "adapter", None) is None:
        return loaded
    from arlm.adapters.files import load_adapter

    return loaded._replace(
        net=load_adapter(loaded.net, options.adapter, options.trust, "--adapter")
    )


def open_network(options: argparse.Namespace, run: str | None = None) -> Loaded:
    """Load the network of `run`, by default `options.run`, and say on stderr what was read."""
    from arlm.checkpoints import load
    from arlm.inference.placement import device_named, place
    from arlm.inference.summary import describe_checkpoint

    device = device_named(options.device)
    path = run or options.run
    loaded = adapt(load(path, options.trust), options)
    place(loaded.net, device, options.precision, options.compile)
    print(describe_checkpoint(path), file=sys.stderr)
    return loaded


def open_data(options: argparse.Namespace, run: str | None = None) -> Run:
    """Load the network of `run`, by default `options.run`, and its data, or that of `options.data`."""
    from arlm.inference.placement import device_named, place
    from arlm.inference.runs import open_run
    from arlm.inference.summary import describe_checkpoint

    device = device_named(options.device)
    path = run or options.run
    opened = open_run(path, options.data, options.trust)
    opened = opened._replace(loaded=adapt(opened.loaded, options))
    place(opened.loaded.net, device, options.precision, options.compile)
    print(describe_checkpoint(path), file=sys.stderr)
    return opened


def add_data_options(parser: Parser) -> None:
    """Add the options that choose the data to score."""
    parser.add_argument(
        "--data",
        help="a data file (YAML), or the name of one that `arlm configs` lists, to read instead of the run's own data",
    )
    parser.add_argument(
        "--split",
        default="test",
        choices=["train", "val", "test"],
        help="default test; train is read in its training batches, which may leave a few rows out",
    )


def add_beam_options(parser: Parser) -> Any:
    """Add the options of beam search, in an argument group that is returned; `check_beam_options` sets the defaults."""
    group = parser.add_argument_group("beam search")
    group.add_argument("--beam", type=int, help="width of the beam; 1 is greedy (default 5)")
    group.add_argument(
        "--length-penalty",
        type=float,
        help="exponent of the length normalisation: a larger one favours longer translations, "
        "and 0 the shortest (default 1)",
    )
    return group


def check_beam_options(options: argparse.Namespace) -> None:
    """Set the defaults of the options of beam search, and refuse values that it cannot use."""
    options.beam = 5 if options.beam is None else options.beam
    penalty = options.length_penalty = (
        1.0 if options.length_penalty is None else options.length_penalty
    )
    require(options.beam >= 1, "--beam", options.beam, "choose at least 1")
    fits = 0 <= penalty <= LARGEST_PENALTY
    require(fits, "--length-penalty", penalty, f"choose 0 to {LARGEST_PENALTY}")
