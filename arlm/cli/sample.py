"""`arlm sample CKPT`: draw samples from a checkpoint, as a picture, an animation or text."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlm.cli.parser import Parser, add_run_options, bar, open_network
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor
    from arlm.sampling.processors import LogitsProcessor


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse and check the options."""
    parser = Parser("sample", "Draw samples from a checkpoint, as a picture or as text.")
    add_run_options(parser)
    parser.add_argument("--n", type=int, default=16, help="number of samples (default 16)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (default 0)")
    parser.add_argument(
        "--processors",
        default="",
        help='logits processors in this order, such as "temperature=0.8,top_p=0.9" or "greedy"; '
        'a colon adds a field: "frequency_penalty=0.5:prompt=true"',
    )
    parser.add_argument(
        "--sweep",
        help='one processor at several values, a row of images each, such as "temperature=0.6,0.8,1"',
    )
    parser.add_argument(
        "--decoding",
        default="steps",
        choices=["steps", "fixed_point"],
        help="token by token, or fixed-point iteration over whole rows; both give the same samples",
    )
    parser.add_argument(
        "--beam",
        type=int,
        help="search for the likeliest --n texts instead of sampling, with a beam of this width",
    )
    parser.add_argument("--label", type=int, help="class to sample (default: all classes in turn)")
    parser.add_argument(
        "--guidance",
        type=float,
        help="how strongly samples follow their class, for networks trained with data.label_dropout: "
        "1 is plain sampling, 2 or 3 are strong (classifier-free guidance)",
    )
    parser.add_argument("--prompt", default="", help="text to continue")
    parser.add_argument("--length", type=int, help="tokens in a sample, prompt included")
    parser.add_argument(
        "--stream",
        action="store_true",
        help="print each text while it is drawn, one after the other",
    )
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a text before the first occurrence of this string; repeat the option for several strings",
    )
    parser.add_argument("--complete", help="an image file, part of which is to be sampled")
    parser.add_argument(
        "--keep",
        default="top:0.5",
        help="the part of it to keep, as SIDE:SHARE, with top, bottom, left or right (default top:0.5)",
    )
    parser.add_argument("--gif", help="a .gif for an animation of the sampling")
    parser.add_argument(
        "--out",
        help="a .png for images, a .txt for text (default: samples.png for images; text is printed)",
    )
    options = parser.parse(arguments)
    require(options.n >= 1, "--n", options.n, "choose at least 1")
    if options.length is not None:
        require(options.length >= 1, "--length", options.length, "choose at least 1")
    if options.beam is not None:
        mend = f"choose at least --n, {options.n}"
        require(options.beam >= options.n, "--beam", options.beam, mend)
        if options.processors or options.sweep or options.decoding != "steps":
            raise UserError(
                "--beam: it searches and draws nothing; omit --processors, --sweep, --decoding"
            )
    if options.stream or options.stop:
        option = "--stream" if options.stream else "--stop"
        if options.beam is not None or options.decoding != "steps":
            raise UserError(f"{option}: it draws token by token; omit --beam and --decoding")
        require(all(options.stop), "--stop", "''", "give at least one character")
        if options.stream and options.out:
            raise UserError("--stream: it prints the texts; omit --out")
    if options.sweep and options.gif:
        raise UserError("--gif: it shows one set of samples; omit --sweep")
    return options


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    options = parse(arguments)
    from arlm.adapters import guided  # late: --help and errors need no torch
    from arlm.reports.files import check_writable
    from arlm.reports.view import view_of
    from arlm.sampling import class_count, class_labels
    from arlm.sampling.processors import parse_processors

    processors = parse_processors(options.processors)
    sweeps = sweep(options.sweep) if options.sweep else {}
    net, domain, *_ = open_network(options)
    view = view_of(domain)
    view.check_verb("sample", options.run)
    view.check_options(vars(options))
    if options.guidance is not None:
        net = guided(net, options.guidance)
    out = options.out or view.default_out
    for path in filter(None, (out, options.gif)):
        check_writable(Path(path))

    context = class_labels(net, options.label, options.n)
    length = options.length or net.spec.length
    forced = view.forced(vars(options), length)
    forced = None if forced is None else forced.expand(options.n, -1)
    if options.stream or options.stop:
        print_texts(options, net, domain.decode, length, processors, forced)
        return
    started = time.perf_counter()
    count = options.n * max(1, len(sweeps))
    with bar("sampling", "tok", length * count) as progress:

        def run(more: Sequence[LogitsProcessor]) -> Tensor:
            given = (length, [*processors, *more], forced, context)
            return draw(options, net, *given, progress)

        drawn = {name: run([each]) for name, each in sweeps.items()} or {"": run([])}
    seconds = time.perf_counter() - started
    tokens = next(iter(drawn.values()))
    if out is None:
        for index, text in enumerate(view.show(tokens).texts):
            print(f"--- {index}", text, sep="\n")
    else:
        # A column for each class, since labels come in turn.
        columns = class_count(net.spec) or None if options.label is None else None
        print(*view.write(drawn, Path(out), columns), sep="\n")
    if options.gif:
        given = None if forced is None else forced >= 0
        print(view.animate(tokens, given, Path(options.gif)))
    total = tokens.shape[1] * count
    print(f"{total} tokens, {total / seconds:.0f} tokens/s", file=sys.stderr)


def draw(
    options: argparse.Namespace,
    net: Autoregressor,
    length: int,
    processors: Sequence[LogitsProcessor],
    forced: Tensor | None,
    context: Tensor | None,
    progress: Any,
) -> Tensor:
    """Rows of tokens (n, T), sampled or searched for as the options say."""
    from arlm.sampling import beam_search, fixed_point, generate, row_seeds

    if options.beam is not None:
        prompt = None if forced is None else forced[:1]
        search = {"beam": options.beam, "n_best": options.n, "prompt": prompt}
        found = beam_search(net, 1, length, context=context, length_penalty=0.0, **search)
        return found.tokens[0].cpu()
    strategy: Any = fixed_point if options.decoding == "fixed_point" else generate
    result = strategy(
        net,
        row_seeds(options.seed, options.n),
        length,
        processors=processors,
        forced=forced,
        context=context,
        progress=lambda positions: progress.update(positions * options.n),
    )
    if options.decoding == "fixed_point":
        print(f"{result.passes} passes for {result.tokens.shape[1]} positions", file=sys.stderr)
    return result.tokens.cpu()


def print_texts(
    options: argparse.Namespace,
    net: Autoregressor,
    decode: Callable[[Tensor], str],
    length: int,
    processors: Sequence[LogitsProcessor],
    forced: Tensor | None,
) -> None:
    """Print texts up to their stop strings, with --stream while they are drawn, or write them to --out."""
    from arlm.inference.completer import stream
    from arlm.reports.files import write_text
    from arlm.sampling import Steps, begin, prepare, row_seeds

    texts = [""] * options.n
    seeds = row_seeds(options.seed, options.n)
    chosen = [[i] for i in range(options.n)] if options.stream else [list(range(options.n))]
    started, tokens = time.perf_counter(), 0
    for rows in chosen:
        given = None if forced is None else forced[rows]
        free, noise = prepare(net, [seeds[i] for i in rows], length, given)
        steps = Steps(net, begin(net, free, noise, processors))
        if options.stream:
            print(f"--- {rows[0]}")
        for piece in stream(steps, decode, options.stop):
            texts[rows[piece.row]] += piece.text
            if options.stream:
                print(piece.text, end="", flush=True)
        tokens += int(steps.state.lengths.sum())
        if options.stream:
            print()
    if not options.stream:
        shown = "".join(f"--- {index}\n{text}\n" for index, text in enumerate(texts))
        print(write_text(shown, Path(options.out)) if options.out else shown.removesuffix("\n"))
    print(
        f"{tokens} tokens, {tokens / (time.perf_counter() - started):.0f} tokens/s", file=sys.stderr
    )


def sweep(text: str) -> dict[str, LogitsProcessor]:
    """Processors of a sweep by name: "temperature=0.6,0.8" gives one for each value."""
    from arlm.sampling.processors import parse_processors

    name, _, values = text.replace(" ", "").partition("=")
    each = [value for value in values.split(",") if value]
    if not each:
        raise UserError(f"--sweep: {text!r} has no values; write for example temperature=0.6,0.8,1")
    return {f"{name} {value}": parse_processors(f"{name}={value}")[0] for value in each}
