"""`arlm score RUN FILE ...`: the likelihood of texts, images or pairs, of each token on request, and pages of it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, add_run_options, bar, open_network, print_json
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from arlm.domains import Domain
    from arlm.inference.items import ItemScores
    from arlm.reports.view import View

PAGE_TOKENS = 20_000  # of a text on a page
PAGE_ITEMS = 100
TOKEN_BYTES, TOP_BYTES = 200, 50  # of a token and of an alternative whose figures are shown


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse and check the options."""
    parser = Parser("score", "Likelihood of texts, images or pairs under a network.")
    add_run_options(parser)
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="texts or images; for a translator SOURCE and TARGET, line by line, or one file with a tab "
        "in each line; - is the standard input",
    )
    parser.add_argument(
        "--prompt", default="", help="text that is read before each file and not scored"
    )
    parser.add_argument("--label", type=int, help="class of the images, if the network needs one")
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print a JSON object for each file")
    output.add_argument(
        "--tokens",
        action="store_true",
        help="print a JSON object for each token: text, position, nats, rank, likeliest tokens",
    )
    output.add_argument(
        "--top",
        type=int,
        default=5,
        help="number of likeliest tokens with --tokens and --html (default 5)",
    )
    output.add_argument("--html", help="a page of the files, coloured by surprise")
    output.add_argument("--out", help="a picture of the surprise of images (.png)")
    options = parser.parse(arguments)
    require(options.top >= 0, "--top", options.top, "choose 0 for none, or more")
    if options.json and options.tokens:
        raise UserError("--json: it prints each file, and --tokens each token; omit one of them")
    return options


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    options = parse(arguments)
    with quick_imports():  # late: --help needs no torch
        from arlm.data.machine import check_memory
        from arlm.inference.items import Sums, figures_of, score_items, sum_items
        from arlm.reports.files import PAGES, check_writable, write_text
        from arlm.reports.view import view_of
        from arlm.sampling import class_count

    loaded = open_network(options)
    net, domain = loaded.net, loaded.domain
    view = view_of(domain)
    view.check_verb("score", options.run)
    classes = class_count(net.spec)
    if classes and options.label is None:
        raise UserError(f"--label: the network needs a class; give 0 to {classes - 1}")
    if options.html:
        check_writable(Path(options.html), "--html", PAGES)
    if options.out:
        check_writable(Path(options.out))
    items = view.to_score(options.files, vars(options), net)
    stride = loaded.data["init_args"].get("stride")  # of a data module that may be anybody's
    stride = stride if type(stride) is int and stride > 0 else None
    count = sum(len(item.tokens) - item.given for item in items)
    scored: list[ItemScores] = []
    if options.tokens or options.html or options.out:
        top = options.top if options.tokens or options.html else 0
        what = f"a text of {count:,} tokens, with figures of each token,"
        check_memory(count * (TOKEN_BYTES + top * TOP_BYTES), "FILE", what)
        scored = score_items(net, items, top, stride)
        figures = [(one.item.name, figures_of([one], domain)) for one in scored]
        total = figures_of(scored, domain)
    else:
        with bar("scoring", "tok", count) as progress:
            sums = sum_items(net, items, domain, stride, progress.update)
        figures = [(item.name, one.figures(domain)) for item, one in zip(items, sums, strict=True)]
        total = Sums(*map(sum, zip(*sums, strict=True))).figures(domain)
    if len(items) > 1:
        figures.append(("total", total))
    # Files first, so that a refusal leaves nothing half printed.
    written = [view.write_surprise(scored, Path(options.out))] if options.out else []
    if options.html:
        command = f"arlm score {shlex.join(arguments)}"
        page = page_of(scored, figures, view, command, options.prompt)
        written.append(write_text(page, Path(options.html)))
    if options.tokens:
        for line in token_lines(scored, view):
            print_json(line)
    elif options.json:
        for name, values in figures:
            print_json({"file": name} | values)
    else:
        for name, values in figures:
            print(summary(name, values, domain))
        print(*written, sep="\n", end="\n" if written else "")


def summary(name: str, figures: dict[str, float], domain: Domain) -> str:
    """The figures of a file in one line."""
    unit = domain.unit
    return (
        f"{name}: {figures['nats']:.2f} nats, {figures['tokens']:,} tokens, "
        f"perplexity {figures['ppl']:.3f}, {figures[f'bits_per_{unit}']:.4f} bits/{unit}"
    )


def token_lines(scored: Sequence[ItemScores], view: View) -> Iterator[dict[str, Any]]:
    """What `--tokens` prints for each token; positions count from the first token that is scored."""
    for one in scored:
        texts, others = view.pieces(one.tokens), view.alternatives(one)
        columns = one.tokens.tolist(), one.nats.tolist(), one.ranks.tolist()
        for index, (token, nats, rank) in enumerate(zip(*columns, strict=True)):
            line = {"file": one.item.name, "position": index, "text": texts[index], "token": token}
            line |= {"nats": nats, "rank": rank}
            if others:
                probabilities = (-one.top_nats[index]).exp().tolist()
                line["top"] = [list(p) for p in zip(others[index], probabilities, strict=True)]
            yield line


def page_of(
    scored: Sequence[ItemScores],
    figures: Sequence[tuple[str, dict[str, float]]],
    view: View,
    command: str,
    prefix: str,
) -> str:
    """The page of `--html`."""
    from arlm.reports.page import render

    unit = view.domain.unit
    headings = ["file", "nats", "tokens", "perplexity", f"bits/{unit}"]
    names = "nats", "tokens", "ppl", f"bits_per_{unit}"
    formats = ",.2f", ",d", ".3f", ".4f"
    rows = [
        [name, *(f"{values[key]:{form}}" for key, form in zip(names, formats, strict=True))]
        for name, values in [*figures[:PAGE_ITEMS], *figures[PAGE_ITEMS:][-1:]]
    ]
    shown = scored[:PAGE_ITEMS]
    items = [(one.item.name, prefix, view.surprise(one, PAGE_TOKENS)) for one in shown]
    given = {"headings": headings, "rows": rows, "items": items, "left": len(scored) - len(shown)}
    return render("scores.html", "Surprise of each token", command, **given)
