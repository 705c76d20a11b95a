"""`arlm attention RUN TEXT`: what each head of each layer reads, as a picture or a page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, add_run_options, open_network


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser("attention", "What each head of each layer reads, as a picture or a page.")
    add_run_options(parser)
    parser.add_argument(
        "text",
        metavar="TEXT",
        help="a text; for a translator a source, which is translated, or a source, a tab and a target; "
        "for images a file",
    )
    parser.add_argument("--label", type=int, help="class of the image, if the network needs one")
    output = parser.add_argument_group("output")
    output.add_argument(
        "--html", help="a page on which a token shows what it reads (default attention.html)"
    )
    output.add_argument("--out", help="a picture of all heads (.png)")
    options = parser.parse(arguments)
    if not options.html and not options.out:
        options.html = "attention.html"

    with quick_imports():
        from arlm.reports.attention_page import attend, labels_of, page, picture
        from arlm.reports.files import PAGES, check_writable, write_bytes, write_text
        from arlm.reports.view import view_of
        from arlm.sampling import class_labels

    net, domain, *_ = open_network(options)
    view = view_of(domain)
    view.check_verb("attention", options.run)
    if options.html:
        check_writable(Path(options.html), "--html", PAGES)
    if options.out:
        check_writable(Path(options.out), "--out", (".png",))
    item = view.to_attend(options.text, net)
    if item.context is None and (labels := class_labels(net, options.label, 1)) is not None:
        item = item._replace(context=labels[0].cpu())
    found = attend(net, item)
    names = labels_of(item, view, found)
    if options.out:
        print(write_bytes(picture(found, names), Path(options.out)))
    if options.html:
        command = f"arlm attention {shlex.join(arguments)}"
        title = f"Attention of {type(net).__name__}"
        print(write_text(page(found, names, view, title, command), Path(options.html)))
