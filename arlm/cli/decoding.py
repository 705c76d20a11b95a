"""Options of decoding that `sample` and `translate` share: what is between the network's logits and the draw."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from arlm.errors import UserError

if TYPE_CHECKING:
    from arlm.cli.parser import Parser
    from arlm.sampling import Noise
    from arlm.sampling.processors import LogitsProcessor

# In the order in which they are applied, after --processors.
SHORTHANDS = ("temperature", "top_k", "top_p")


def add_decoding_options(parser: Parser, without: str) -> Any:
    """Add the options, in an argument group that is returned.

    Args:
        parser: of the verb.
        without: what the verb does without these options, a sentence for the help.
    """
    group = parser.add_argument_group(
        "decoding",
        f"{without} The order is: --processors, --temperature, --top-k, --top-p.",
    )
    group.add_argument(
        "--temperature",
        type=float,
        help="divide the logits by this number: below 1 likely tokens become likelier",
    )
    group.add_argument("--top-k", type=int, help="draw one of the k likeliest tokens")
    group.add_argument(
        "--top-p",
        type=float,
        help="draw one of the likeliest tokens that together have this probability",
    )
    group.add_argument("--greedy", action="store_true", help="take the likeliest token")
    group.add_argument(
        "--processors",
        default="",
        help='logits processors in this order, such as "frequency_penalty=0.3,mirostat=3"; '
        'a colon adds a field: "frequency_penalty=0.5:prompt=true"; one of yours by its class path, with --trust',
    )
    return group


def given_options(options: argparse.Namespace) -> list[str]:
    """The options of decoding that were given, such as "--top-k"."""
    values = {name: getattr(options, name) for name in (*SHORTHANDS, "greedy", "processors")}
    return [
        "--" + name.replace("_", "-")
        for name, value in values.items()
        if value is not None and value is not False and value != ""
    ]


def chosen_processors(options: argparse.Namespace) -> tuple[LogitsProcessor, ...]:
    """The logits processors that the options name, in the order in which they apply."""
    chosen = {
        name: f"{name}={value}"
        for name in SHORTHANDS
        if (value := getattr(options, name)) is not None
    }
    if options.greedy and chosen:
        names = ", ".join("--" + name.replace("_", "-") for name in chosen)
        raise UserError(f"--greedy: it always takes the likeliest token; omit {names}")
    if options.greedy:
        chosen["greedy"] = "greedy"
    named = {
        part.partition("=")[0].partition(":")[0].strip() for part in options.processors.split(",")
    }
    for name in named & set(chosen):
        option = "--" + name.replace("_", "-")
        raise UserError(f"{option}: it is in --processors too; give it once")
    text = ",".join(filter(None, [options.processors, *chosen.values()]))
    if not text:
        return ()
    return processors_of(text, options.trust)


def chosen_noise(options: argparse.Namespace) -> Noise:
    """The noise of `--noise`; by default uniform, and with `--draft` Gumbel's."""
    from arlm.sampling import Gumbel, Uniform

    default = "gumbel" if options.draft else "uniform"
    return Gumbel() if (options.noise or default) == "gumbel" else Uniform()


def processors_of(text: str, trusted: Sequence[str]) -> tuple[LogitsProcessor, ...]:
    """Logits processors by name, or by class path where their modules are trusted."""
    from arlm.checkpoints import import_class  # late: --help needs no torch
    from arlm.sampling.processors import LogitsProcessor, parse_processors

    def find(path: str) -> type[LogitsProcessor]:
        return import_class(path, LogitsProcessor, trusted, "--processors")  # type: ignore[type-abstract]

    return parse_processors(text, find)
