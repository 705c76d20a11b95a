"""Options of decoding that `sample`, `next` and `translate` share: what is between the network's logits and the draw."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from arlm.errors import UserError

if TYPE_CHECKING:
    from arlm.cli.parser import Parser
    from arlm.domains import Domain
    from arlm.sampling import Noise
    from arlm.sampling.processors import LogitsProcessor

# In the order in which they are applied, after --processors.
SHORTHANDS = ("temperature", "top_k", "top_p")
LANGUAGES = ("regex", "json_schema", "grammar")  # fields of the constraint, which is applied first


def add_decoding_options(parser: Parser, without: str) -> Any:
    """Add the options, in an argument group that is returned.

    Args:
        parser: of the verb.
        without: what the verb does without these options, a sentence for the help.
    """
    group = parser.add_argument_group(
        "decoding",
        f"{without} The order is: a constraint, --processors, --temperature, --top-k, --top-p; or a constraint, "
        "--processors, and the order of --preset.",
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
    group.add_argument(
        "--preset",
        metavar="NAME",
        help="decode as another library: huggingface, llamacpp, openai, vllm, or the course notes' algorithm, notes; a "
        'colon adds an option of that library: "llamacpp:repeat_penalty=1.1"; other options here go over it',
    )
    constraint = parser.add_argument_group(
        "constraint",
        "Texts of one language only, without the prompt; needs the extra [constrained]. Each token is drawn from "
        "those that may follow, which is not the network's distribution over the texts of the language.",
    )
    constraint.add_argument(
        "--regex",
        help=r"a regular expression that the whole text matches; write [0-9], since \d is any digit",
    )
    constraint.add_argument(
        "--json-schema",
        metavar="SCHEMA",
        help="a JSON schema, or a file with one; JSON without white space between its parts",
    )
    constraint.add_argument(
        "--grammar", help='a grammar in Lark\'s syntax with a rule "start:", or a file with one'
    )
    return group


def given_options(options: argparse.Namespace) -> list[str]:
    """The options of decoding that were given, such as "--top-k"."""
    names = (*LANGUAGES, *SHORTHANDS, "greedy", "processors", "preset")
    values = {name: getattr(options, name) for name in names}
    return [
        "--" + name.replace("_", "-")
        for name, value in values.items()
        if value is not None and value is not False and value != ""
    ]


def chosen_processors(options: argparse.Namespace) -> tuple[LogitsProcessor, ...]:
    """The logits processors that the options name, in the order in which they apply."""
    chosen = {name: value for name in SHORTHANDS if (value := getattr(options, name)) is not None}
    if options.greedy and chosen:
        names = ", ".join("--" + name.replace("_", "-") for name in chosen)
        raise UserError(f"--greedy: it always takes the likeliest token; omit {names}")
    if options.preset is not None:
        return *constraint(options), *with_preset(options, chosen)
    if options.greedy:
        chosen["greedy"] = None
    named = {
        part.partition("=")[0].partition(":")[0].strip() for part in options.processors.split(",")
    }
    for name in named & set(chosen):
        option = "--" + name.replace("_", "-")
        raise UserError(f"{option}: it is in --processors too; give it once")
    shorthands = (name if value is None else f"{name}={value}" for name, value in chosen.items())
    text = ",".join(filter(None, [options.processors, *shorthands]))
    drawn = processors_of(text, options.trust) if text else ()
    return *constraint(options), *drawn


def constraint(options: argparse.Namespace) -> tuple[LogitsProcessor, ...]:
    """The constraint that the options name, if any."""
    given = {name: value for name in LANGUAGES if (value := getattr(options, name)) is not None}
    if not given:
        return ()
    if len(given) > 1:
        first, second = ("--" + name.replace("_", "-") for name in list(given)[:2])
        raise UserError(f"{second}: the text has one language; omit it, or {first}")
    from arlm.sampling.processors.constraint import Constraint  # late: --help needs no torch

    return (Constraint(**given),)


def bind_all(processors: Sequence[LogitsProcessor], domain: Domain) -> tuple[LogitsProcessor, ...]:
    """The processors for rows of a domain."""
    return tuple(processor.bind(domain) for processor in processors)


def with_preset(options: argparse.Namespace, given: dict[str, Any]) -> tuple[LogitsProcessor, ...]:
    """The processors of --processors, then those of --preset, whose options may be given as flags."""
    from arlm.sampling.presets import parse_preset  # late: --help needs no torch
    from arlm.sampling.processors import name_of
    from arlm.sampling.processors.keep_end import applied

    preset = parse_preset(options.preset, given, options.greedy)
    own = processors_of(options.processors, options.trust) if options.processors else ()
    kinds = ({type(applied(each)) for each in part} for part in (preset, own))
    for kind in set.intersection(*kinds):
        raise UserError(
            f"--processors: {name_of(kind)} is part of the preset {options.preset}; omit one of them"
        )
    return (*own, *preset)


def chosen_noise(options: argparse.Namespace, mark: Noise | None) -> Noise:
    """The noise of a watermark, or of `--noise`; by default uniform, and with `--draft` Gumbel's."""
    from arlm.sampling import Gumbel, Uniform

    if mark is not None:
        if options.noise:
            raise UserError("--noise: this watermark is a noise of its own; omit one of them")
        return mark
    default = "gumbel" if options.draft else "uniform"
    return Gumbel() if (options.noise or default) == "gumbel" else Uniform()


def processors_of(text: str, trusted: Sequence[str]) -> tuple[LogitsProcessor, ...]:
    """Logits processors by name, or by class path where their modules are trusted."""
    from arlm.checkpoints import import_class  # late: --help needs no torch
    from arlm.sampling.processors import LogitsProcessor, parse_processors

    def find(path: str) -> type[LogitsProcessor]:
        return import_class(path, LogitsProcessor, trusted, "--processors")  # type: ignore[type-abstract]

    return parse_processors(text, find)
