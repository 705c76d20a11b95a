"""`arlm sample CKPT`: draw samples from a checkpoint, as a picture, an animation or text."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlm.cli.parser import Parser, bar
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor
    from arlm.sampling.processors import LogitsProcessor


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = Parser("sample", "Draw samples from a checkpoint, as a picture or as text.")
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument("--n", type=int, default=16, help="rows to draw (default 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the rows (default 0)")
    parser.add_argument(
        "--processors",
        default="",
        help='logits processors in this order, such as "temperature=0.8,top_p=0.9" or "greedy"',
    )
    parser.add_argument(
        "--sweep",
        help='one processor at several values, such as "temperature=0.6,0.8,1", a row each',
    )
    parser.add_argument(
        "--decoding",
        default="steps",
        choices=["steps", "fixed_point"],
        help="token by token, or whole rows until nothing changes: the same samples",
    )
    parser.add_argument(
        "--beam", type=int, help="search for the likeliest --n texts instead, with this beam width"
    )
    parser.add_argument("--label", type=int, help="class to draw (default: all in turn)")
    parser.add_argument("--prompt", default="", help="text to continue")
    parser.add_argument("--length", type=int, help="tokens in a row, prompt included")
    parser.add_argument("--complete", help="an image file of which a part is to be drawn")
    parser.add_argument(
        "--keep", default="top:0.5", help="the given part: top, bottom, left or right:share"
    )
    parser.add_argument("--gif", help="write an animation of the pixels as they are drawn")
    parser.add_argument("--out", help="a .png for images, a .txt for text (default: print text)")
    options = parser.parse(arguments)
    require(options.n >= 1, "--n", options.n, "choose at least 1")
    if options.length is not None:
        require(options.length >= 1, "--length", options.length, "choose at least 1")
    if options.beam is not None:
        least = options.n
        require(options.beam >= least, "--beam", options.beam, f"choose at least --n, {least}")
        if options.processors or options.sweep or options.decoding != "steps":
            raise UserError(
                "--beam: it searches and draws nothing; omit --processors, --sweep, --decoding"
            )
    if options.sweep and options.gif:
        raise UserError("--gif: it shows one set of samples; omit --sweep")
    return options


def main(arguments: Sequence[str]) -> None:
    """Run the verb."""
    options = parse(arguments)
    from arlm.checkpoints import load  # torch is imported only now
    from arlm.reports.files import check_writable
    from arlm.reports.view import view_of
    from arlm.sampling import class_labels
    from arlm.sampling.processors import parse_processors

    processors = parse_processors(options.processors)
    sweeps = sweep(options.sweep) if options.sweep else {}
    net, domain, *_ = load(options.checkpoint)
    view = view_of(domain)
    view.check_verb("sample", options.checkpoint)
    view.check_options(vars(options))
    out = options.out or view.default_out
    for path in filter(None, (out, options.gif)):
        check_writable(Path(path))

    context = class_labels(net, options.label, options.n)
    length = options.length or net.spec.length
    forced = view.forced(vars(options), length)
    forced = None if forced is None else forced.expand(options.n, -1)
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
        classes = net.spec.context  # labels in turn: a column for each
        columns = classes.vocab_size if classes and options.label is None else None
        print(*view.write(drawn, Path(out), columns), sep="\n")
    if options.gif:
        from arlm.reports.images import appearing, write_animation

        given = None if forced is None else forced >= 0
        print(write_animation(appearing(domain, tokens, 60, given), Path(options.gif)))  # type: ignore[arg-type]
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
    """Rows of tokens (n, T), by the strategy that the options name."""
    from arlm.sampling import beam_search, fixed_point, generate, row_seeds

    if options.beam is not None:
        prompt = None if forced is None else forced[:1]
        search = {"beam": options.beam, "n_best": options.n, "prompt": prompt}
        found = beam_search(net, 1, length, context=context, length_penalty=0.0, **search)
        return found.tokens[0]
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
    return result.tokens


def sweep(text: str) -> dict[str, LogitsProcessor]:
    """ "temperature=0.6,0.8" -> a processor for each value, by its name."""
    from arlm.sampling.processors import parse_processors

    name, _, values = text.replace(" ", "").partition("=")
    each = [value for value in values.split(",") if value]
    if not each:
        raise UserError(f"--sweep: {text!r} has no values; write for example temperature=0.6,0.8,1")
    return {f"{name} {value}": parse_processors(f"{name}={value}")[0] for value in each}
