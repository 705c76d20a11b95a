"""`arlm sample RUN`: draw samples from a checkpoint, as text, a picture or an animation."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlm.cli.decoding import add_decoding_options, chosen_noise, chosen_processors, processors_of
from arlm.cli.drafting import add_draft_options
from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, add_run_options, bar, open_network
from arlm.cli.texts import texts, write_search
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor
    from arlm.reports.view import View
    from arlm.sampling.processors import LogitsProcessor

MOST, MOST_FILES = 10**6, 10**4  # samples that are printed, and samples in pictures or files


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse and check the options."""
    parser = Parser("sample", "Draw samples from a checkpoint, as text or as a picture.")
    add_run_options(parser)
    parser.add_argument(
        "-n", type=int, help="number of samples, of each prompt (default 1 text, or 16 images)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (default 0)")
    parser.add_argument(
        "--out",
        help="file for the texts (default: they are printed), or for the samples (default samples.png, or as "
        "the domain names it)",
    )
    parser.add_argument("--label", type=int, help="class to sample (default: all classes in turn)")
    parser.add_argument(
        "--guidance",
        type=float,
        help="how strongly samples follow their class, for networks trained with data.label_dropout: "
        "1 is plain sampling, 2 or 3 are strong (classifier-free guidance)",
    )
    decoding = add_decoding_options(
        parser, "Without these options, samples come from the network's own distribution."
    )
    decoding.add_argument(
        "--decoding",
        default="steps",
        choices=["steps", "fixed_point"],
        help="token by token, or fixed-point iteration over whole rows; both give the same samples",
    )
    decoding.add_argument(
        "--noise",
        choices=["uniform", "gumbel"],
        help="how a token is drawn: from one random number (uniform, the default), or from one for each token "
        "(gumbel, the default with --draft); the samples of a seed depend on it",
    )
    text = parser.add_argument_group("text")
    text.add_argument("--prompt", default="", help="text to continue; it is printed too")
    text.add_argument("--prompt-file", metavar="FILE", help="a file with a prompt on each line")
    text.add_argument(
        "--max-new-tokens",
        type=int,
        help="tokens after the prompt; more than the network's window make it slide "
        "(default: up to the length of the rows of training)",
    )
    text.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a text before the first occurrence of this string; repeat the option for several strings",
    )
    text.add_argument(
        "--stream",
        action="store_true",
        help="print each text while it is drawn, one after the other",
    )
    text.add_argument(
        "--json", action="store_true", help="print one JSON object a line for each text"
    )
    text.add_argument(
        "--beam",
        type=int,
        help="search for the likeliest -n texts instead of sampling, with a beam of this width",
    )
    text.add_argument(
        "--tree",
        help="with --beam, a picture (.png) or a page (.html) of what was kept at each step of the search",
    )
    add_draft_options(text)
    images = parser.add_argument_group("images, and other samples that are written to files")
    images.add_argument(
        "--complete", help="an image, or a file of music, part of which is to be sampled"
    )
    images.add_argument(
        "--keep",
        default="top:0.5",
        help="the part of it to keep, as SIDE:SHARE, with top, bottom, left or right (default top:0.5); "
        "pixels are drawn from the top left, so none depends on what is kept after it; of music, top is the "
        "highest voices and left the beginning",
    )
    images.add_argument(
        "--sweep",
        help='one processor at several values, a row of images each, such as "temperature=0.6,0.8,1"',
    )
    images.add_argument("--gif", help="a .gif for an animation of the sampling")
    options = parser.parse(arguments)
    options.command = list(arguments)
    check(options)
    return options


def check(options: argparse.Namespace) -> None:
    """Refuse options that do not fit together."""
    if options.n is not None:
        require(options.n >= 1, "-n", options.n, "choose at least 1")
        require(options.n <= MOST, "-n", options.n, f"choose at most {MOST}")
    new = options.max_new_tokens
    if new is not None:
        require(new >= 1, "--max-new-tokens", new, "choose at least 1")
    if options.beam is not None:
        count = options.n or 1
        require(options.beam >= count, "--beam", options.beam, f"choose at least -n, {count}")
        if options.sweep or options.noise or options.decoding != "steps":
            raise UserError(
                "--beam: it searches and draws nothing; omit --sweep, --noise and --decoding"
            )
    if options.tree and options.beam is None:
        raise UserError("--tree: it shows a search; give --beam")
    for option in ("stream", "stop", "prompt_file", "draft"):
        if not getattr(options, option):
            continue
        name = "--" + option.replace("_", "-")
        if options.beam is not None or options.decoding != "steps":
            raise UserError(f"{name}: it draws token by token; omit --beam and --decoding")
    if options.draft_tokens is not None and not options.draft:
        raise UserError("--draft-tokens: a draft proposes them; give --draft")
    require(all(options.stop), "--stop", "''", "give at least one character")
    if options.prompt and options.prompt_file:
        raise UserError("--prompt-file: it holds the prompts; omit --prompt")
    if options.stream and (options.out or options.json):
        raise UserError("--stream: it prints the texts; omit --out and --json")
    if options.sweep and options.gif:
        raise UserError("--gif: it shows one set of samples; omit --sweep")


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    options = parse(arguments)
    with quick_imports():  # late: --help and errors need no torch
        from arlm.adapters import guided
        from arlm.inference.beam_tree import BeamTree
        from arlm.reports.files import PAGES, check_writable
        from arlm.reports.view import view_of

    processors = chosen_processors(options)
    sweeps = sweep(options.sweep, options.trust) if options.sweep else {}
    net, domain, *_ = open_network(options)
    view = view_of(domain)
    view.check_verb("sample", options.run)
    view.check_options(vars(options))
    if options.guidance is not None:
        net = guided(net, options.guidance)
    options.n = options.n or view.default_n
    out = options.out or view.default_out
    if out is not None:
        check_writable(Path(out), suffixes=view.suffixes)
    if options.gif:
        check_writable(Path(options.gif), "--gif", (".gif",))
    if options.tree:
        check_writable(Path(options.tree), "--tree", (".png", *PAGES))
    started = time.perf_counter()
    tree = BeamTree() if options.tree else None
    if view.default_out is None:
        total = texts(options, net, view, processors, tree)
    else:
        assert out is not None
        total = files(options, net, view, Path(out), processors, sweeps)
    seconds = time.perf_counter() - started
    print(f"{total} tokens, {total / seconds:.0f} tokens/s", file=sys.stderr)
    if tree:
        write_search(tree, options, view)


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
    require(options.n <= MOST_FILES, "-n", options.n, f"choose at most {MOST_FILES}, {most}")
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
        noise=chosen_noise(options),
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


def sweep(text: str, trusted: Sequence[str]) -> dict[str, LogitsProcessor]:
    """Processors of a sweep by name: "temperature=0.6,0.8" gives one for each value."""
    name, _, values = text.replace(" ", "").partition("=")
    each = [value for value in values.split(",") if value]
    if not each:
        raise UserError(f"--sweep: {text!r} has no values; write for example temperature=0.6,0.8,1")
    return {f"{name} {value}": processors_of(f"{name}={value}", trusted)[0] for value in each}
