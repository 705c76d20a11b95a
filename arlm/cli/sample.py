"""`arlm sample RUN`: draw samples from a checkpoint, as text, a picture or an animation."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from arlm.cli.decoding import (
    add_decoding_options,
    bind_all,
    chosen_noise,
    chosen_processors,
    given_options,
    processors_of,
)
from arlm.cli.drafting import add_draft_options
from arlm.cli.files import files
from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, add_run_options, open_network
from arlm.cli.texts import texts, write_search
from arlm.cli.watermarks import add_watermark_option, marked
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from arlm.sampling.processors import LogitsProcessor

MOST = 10**6  # samples


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
    add_watermark_option(decoding, "after all other processors, mark the texts for `arlm detect`")
    decoding.add_argument(
        "--noise",
        choices=["uniform", "gumbel"],
        help="how a token is drawn: from one random number (uniform, the default), or from one for each token "
        "(gumbel, the default with --draft); the samples of a seed depend on it",
    )
    text = parser.add_argument_group("text")
    text.add_argument("--prompt", default="", help="text to continue; it is printed too")
    text.add_argument(
        "--prompt-file",
        metavar="FILE",
        help='a file with a prompt on each line, or lines {"prompt": "..."} (.jsonl); - is the standard input',
    )
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
        "--top",
        type=int,
        help="show the probability of each drawn token, under the network and as it was drawn, and this many of "
        "the likeliest tokens in its place: a table after each text, or with --json objects",
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
    text.add_argument(
        "--best-of",
        type=int,
        metavar="N",
        help="draw N texts after each prompt and print the -n of them that are likeliest under the network, by the "
        "log-probability of the whole text",
    )
    text.add_argument(
        "--penalty-alpha",
        type=float,
        metavar="A",
        help="contrastive search in place of sampling: of the --top-k likeliest tokens (default 5) the one with the "
        "largest (1 - A) p - A times its likeness to what the text has said; 0.6 is usual",
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
        others = options.sweep or options.watermark or options.noise
        if others or options.decoding != "steps":
            raise UserError(
                "--beam: it searches and draws nothing; omit --watermark, --sweep, --noise and --decoding"
            )
    if options.tree and options.beam is None:
        raise UserError("--tree: it shows a search; give --beam")
    if options.top is not None:
        require(options.top >= 1, "--top", options.top, "choose at least 1")
        if options.stream or options.draft:
            what = "--stream" if options.stream else "--draft"
            raise UserError(f"--top: it shows tokens that were drawn one by one; omit {what}")
    check_searches(options)
    for option in ("stream", "stop", "prompt_file", "top", "draft"):
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


def check_searches(options: argparse.Namespace) -> None:
    """Refuse options that do not fit --best-of and --penalty-alpha."""
    if options.best_of is not None:
        least = options.n or 1
        require(
            options.best_of >= least, "--best-of", options.best_of, f"choose at least -n, {least}"
        )
        require(options.best_of <= MOST, "--best-of", options.best_of, f"choose at most {MOST}")
        if options.stream or options.beam is not None or options.decoding != "steps":
            raise UserError(
                "--best-of: it compares whole texts that were drawn; omit --stream, --beam and --decoding"
            )
    if options.penalty_alpha is None:
        return
    require(
        0 <= options.penalty_alpha <= 1, "--penalty-alpha", options.penalty_alpha, "choose 0 to 1"
    )
    others = (
        "beam",
        "best_of",
        "stream",
        "stop",
        "prompt_file",
        "top",
        "draft",
        "noise",
        "watermark",
    )
    drawing = [name for name in given_options(options) if name != "--top-k"]
    drawing += ["--" + name.replace("_", "-") for name in others if getattr(options, name)]
    if options.decoding != "steps":
        drawing.append("--decoding")
    if drawing:
        raise UserError(
            f"--penalty-alpha: contrastive search draws nothing; omit {', '.join(drawing)}"
        )
    if (options.n or 1) > 1:
        raise UserError(f"-n: contrastive search finds one text, not {options.n}; omit it")


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    options = parse(arguments)
    with quick_imports():  # late: --help and errors need no torch
        from arlm.adapters import guided
        from arlm.inference.beam_tree import BeamTree
        from arlm.reports.files import PAGES, check_writable
        from arlm.reports.view import view_of

    contrastive = options.penalty_alpha is not None  # in which --top-k is no processor
    processors, mark = marked(options, () if contrastive else chosen_processors(options))
    options.noise = chosen_noise(options, mark)
    sweeps = sweep(options.sweep, options.trust) if options.sweep else {}
    net, domain, *_ = open_network(options)
    view = view_of(domain)
    view.check_verb("sample", options.run)
    view.check_options(vars(options))
    processors = bind_all(processors, domain)
    sweeps = {name: one.bind(domain) for name, one in sweeps.items()}
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


def sweep(text: str, trusted: Sequence[str]) -> dict[str, LogitsProcessor]:
    """Processors of a sweep by name: "temperature=0.6,0.8" gives one for each value; a list is one value."""
    from arlm.sampling.values import split  # late: --help needs no torch

    name, _, values = map(str.strip, text.partition("="))
    each = [value for value in map(str.strip, split("--sweep", values, ",")) if value]
    if not each:
        raise UserError(f"--sweep: {text!r} has no values; write for example temperature=0.6,0.8,1")
    return {f"{name} {value}": processors_of(f"{name}={value}", trusted)[0] for value in each}
