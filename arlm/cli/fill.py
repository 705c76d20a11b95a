"""`arlm fill RUN TEXT`: the likeliest tokens in the gaps of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, add_run_options, bar, open_network, print_json
from arlm.errors import require


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        "fill",
        "The likeliest tokens in the gaps of a text, each gap written [MASK]. Networks of masked text read both sides; "
        "causal ones score the text with every token in the gap.",
    )
    add_run_options(parser)
    parser.add_argument("text", help='a text such as "import s[MASK]s", "-" for the standard input')
    parser.add_argument(
        "-n", type=int, default=5, help="number of fillings, best first (default 5)"
    )
    group = parser.add_argument_group(
        "several gaps under a network of masked text",
        "Each filling is drawn, token by token. One gap needs no draw.",
    )
    group.add_argument(
        "--order",
        choices=["random", "confident"],
        help="fill the gaps of a draw in a random order, or first where the network is surest (default random)",
    )
    group.add_argument("--per-pass", type=int, help="gaps that are filled at a time (default 1)")
    group.add_argument("--draws", type=int, help="number of draws (default 64, or 4 times -n)")
    group.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse(arguments)
    require(options.n >= 1, "-n", options.n, "choose at least 1")
    for name in ("per_pass", "draws"):
        value = getattr(options, name)
        fits = value is None or value >= 1
        require(fits, f"--{name.replace('_', '-')}", value, "choose at least 1")

    with quick_imports():
        from arlm.inference.fillings import FillOptions
        from arlm.reports.text_view import text_of
        from arlm.reports.tokens import visible
        from arlm.reports.view import view_of

    net, domain, *_ = open_network(options)
    view = view_of(domain)
    view.check_verb("fill", options.run)
    text = text_of("-").removesuffix("\n") if options.text == "-" else options.text
    how = FillOptions(options.n, options.seed, options.order, options.per_pass, options.draws)
    with bar("scoring", "text", 0) as progress:
        found = view.fill(net, text, how, progress.update)
    records = [
        {
            "gaps": [domain.decode(gap) for gap in one.gaps],
            "nats": -one.log_prob,
            "probability": math.exp(one.log_prob),
            "text": domain.decode(one.tokens),
        }
        for one in found.fillings
    ]
    if options.json:
        print_json({"probability": found.how, "fillings": records})
        return
    print(f"probability {found.how}")
    print("rank  probability  text")
    for rank, record in enumerate(records, start=1):
        shown = visible(str(record["text"]))
        print(f"{rank:>4}  {100 * float(record['probability']):>9.2f} %  {shown}")  # type: ignore[arg-type]
