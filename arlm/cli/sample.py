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
    from arlm.domains import ImageDomain
    from arlm.sampling.processors import Rule


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = Parser("sample", "Draw samples from a checkpoint, as a picture or as text.")
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument("--n", type=int, default=16, help="rows to draw (default 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the rows (default 0)")
    parser.add_argument(
        "--rules", default="", help='such as "temperature=0.8,top_p=0.9" or "greedy", in this order'
    )
    parser.add_argument(
        "--sweep", help='one rule at several values, such as "temperature=0.6,0.8,1", a row each'
    )
    parser.add_argument(
        "--decoding",
        default="steps",
        choices=["steps", "fixed_point"],
        help="token by token, or whole rows until nothing changes: the same samples",
    )
    parser.add_argument(
        "--beam", type=int, help="search for the likeliest --n texts instead, with so wide a beam"
    )
    parser.add_argument("--label", type=int, help="class to draw (default: all in turn)")
    parser.add_argument("--prompt", default="", help="text to go on from")
    parser.add_argument("--length", type=int, help="tokens in a row, prompt included")
    parser.add_argument("--complete", help="an image file whose rest is to be drawn")
    parser.add_argument(
        "--keep", default="top:0.5", help="what of it is given: top, bottom, left or right:share"
    )
    parser.add_argument("--gif", help="write the pixels' appearing as an animation")
    parser.add_argument("--out", help="a .png for images, a .txt for text (default: print text)")
    options = parser.parse(arguments)
    require(options.n >= 1, "--n", options.n, "choose at least 1")
    if options.length is not None:
        require(options.length >= 1, "--length", options.length, "choose at least 1")
    if options.beam is not None:
        least = options.n
        require(options.beam >= least, "--beam", options.beam, f"choose at least --n, {least}")
        if options.rules or options.sweep or options.decoding != "steps":
            raise UserError(
                "--beam: it searches and draws nothing; omit --rules, --sweep, --decoding"
            )
    if options.sweep and options.gif:
        raise UserError("--gif: it shows one set of samples; omit --sweep")
    return options


def main(arguments: Sequence[str]) -> None:
    """Run the verb."""
    options = parse(arguments)
    from arlm.checkpoints import load  # torch is imported only now
    from arlm.domains import ImageDomain, TranslationDomain
    from arlm.reports.images import check_writable, write_samples
    from arlm.sampling.processors import parse_rules

    rules = parse_rules(options.rules)
    rows = sweep(options.sweep) if options.sweep else {}
    loaded = load(options.checkpoint)
    domain: Any = loaded.domain
    out: Path | None
    if isinstance(domain, TranslationDomain):
        raise UserError(
            f"checkpoint: '{options.checkpoint}' translates; use `arlm translate`, which samples by --rules"
        )
    if isinstance(domain, ImageDomain):
        refuse_for_images(options)
        out = Path(options.out or "samples.png")
    else:
        refuse_for_text(options)
        out = Path(options.out) if options.out else None
    for path in filter(None, (out, options.gif)):
        check_writable(Path(path))

    context = labels(loaded.net, options.label, options.n)
    forced = None
    length = options.length or loaded.net.spec.length
    if options.complete:
        tokens = domain.read(Path(options.complete), "--complete")
        forced = kept(domain, tokens, options.keep).expand(options.n, -1)
    elif options.prompt:
        forced = prompt_tokens(domain, options.prompt, length).expand(options.n, -1)
    began = time.perf_counter()
    count = options.n * max(1, len(rows))
    with bar("sampling", "tok", length * count) as progress:

        def run(more: Sequence[Rule]) -> Tensor:
            given = (length, [*rules, *more], forced, context)
            return draw(options, loaded.net, *given, progress)

        drawn = {name: run([rule]) for name, rule in rows.items()} or {"": run([])}
    seconds = time.perf_counter() - began
    tokens = drawn[next(iter(drawn))]
    if out is None:
        for index, row in enumerate(tokens):
            print(f"--- {index}", domain.decode(row), sep="\n")
    elif rows:
        from arlm.reports.images import labelled_grid, write_image

        print(write_image(labelled_grid({k: domain.decode(v) for k, v in drawn.items()}), out))
    else:
        classes = loaded.net.spec.context  # labels in turn: a column for each
        columns = classes.vocab_size if classes and options.label is None else None
        print(write_samples(domain, tokens, out.with_suffix(""), columns))
    if options.gif:
        from arlm.reports.images import growing, write_animation

        given = None if forced is None else forced >= 0
        print(write_animation(growing(domain, tokens, 60, given), Path(options.gif)))
    total = tokens.shape[1] * count
    print(f"{total} tokens, {total / seconds:.0f} tokens/s", file=sys.stderr)


def draw(options, net: Autoregressor, length, rules, forced, context, progress) -> Tensor:
    """Rows of tokens (n, T), by the strategy asked for."""
    from arlm.sampling import beam_search, fixed_point, generate, row_seeds

    if options.beam is not None:
        prompt = None if forced is None else forced[:1]
        search = {"beam": options.beam, "best": options.n, "prompt": prompt}
        return beam_search(net, 1, length, context=context, alpha=0.0, **search).tokens[0]
    strategy: Any = fixed_point if options.decoding == "fixed_point" else generate
    result = strategy(
        net,
        row_seeds(options.seed, options.n),
        length,
        rules=rules,
        forced=forced,
        context=context,
        progress=lambda positions: progress.update(positions * options.n),
    )
    if options.decoding == "fixed_point":
        print(f"{result.passes} passes for {result.tokens.shape[1]} positions", file=sys.stderr)
    return result.tokens


def refuse_for_images(options: argparse.Namespace) -> None:
    """Options that mean nothing for images."""
    if options.prompt:
        raise UserError(
            f"--prompt: {options.prompt!r} given, but the checkpoint draws images; "
            "omit it, or give --complete"
        )
    if options.beam is not None:
        raise UserError("--beam: the likeliest image is no sample; omit it")
    if options.length is not None:
        raise UserError("--length: images have a fixed size; omit it")


def refuse_for_text(options: argparse.Namespace) -> None:
    """Options that mean nothing for text."""
    for name in ("complete", "gif", "sweep"):
        if getattr(options, name):
            raise UserError(f"--{name}: it needs images, but the checkpoint draws text; omit it")


def sweep(text: str) -> dict[str, Rule]:
    """ "temperature=0.6,0.8" -> a rule for each value, by its name."""
    from arlm.sampling.processors import parse_rules

    name, _, values = text.replace(" ", "").partition("=")
    each = [value for value in values.split(",") if value]
    if not each:
        raise UserError(f"--sweep: {text!r} has no values; write for example temperature=0.6,0.8,1")
    return {f"{name} {value}": parse_rules(f"{name}={value}")[0] for value in each}


def labels(net: Autoregressor, label: int | None, rows: int) -> Tensor | None:
    """The class of each row (rows, 1): the one asked for, or all in turn."""
    import torch

    from arlm.sampling import labels_in_turn

    if label is None:
        return labels_in_turn(net, rows)
    if net.spec.context is None:
        raise UserError(f"--label: {label} given, but the checkpoint knows no classes; omit it")
    classes = net.spec.context.vocab_size
    require(0 <= label < classes, "--label", label, f"choose 0 to {classes - 1}")
    return torch.full((rows, 1), label)


def kept(domain: ImageDomain, tokens: Tensor, keep: str) -> Tensor:
    """Tokens (1, T) of an image, -1 where they are to be drawn anew; `keep` is like "top:0.5"."""
    import torch

    side, _, number = keep.partition(":")
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if side not in ("top", "bottom", "left", "right") or not 0 < share < 1:
        raise UserError(
            f"--keep: {keep!r} is not understood; "
            "write top, bottom, left or right and a share, such as top:0.5"
        )
    rows = torch.linspace(0, 1, domain.height + 1)[:-1] + 0.5 / domain.height
    columns = torch.linspace(0, 1, domain.width + 1)[:-1] + 0.5 / domain.width
    place = (rows[:, None] if side in ("top", "bottom") else columns).expand(domain.height, -1)
    place = place.expand(domain.height, domain.width)
    inside = place < share if side in ("top", "left") else place > 1 - share
    inside = inside[..., None].expand(-1, -1, domain.channels).flatten()
    return torch.where(inside, tokens, -1)[None]


def prompt_tokens(domain, prompt: str, length: int) -> Tensor:
    """The prompt as (1, T) tokens, fewer than `length`."""
    try:
        tokens = domain.encode(prompt)
    except UserError as error:
        raise UserError(f"--prompt: {error}") from None
    if len(tokens) >= length:
        raise UserError(
            f"--prompt: {len(tokens)} tokens leave nothing to draw in a row of {length}; "
            "shorten it, or raise --length as far as the network's context allows"
        )
    return tokens[None]
