"""`arlm score CKPT IMAGE ...`: likelihood of images under a checkpoint, and a heat map of their surprise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from arlm.cli.parser import Parser, add_run_options, open_network
from arlm.errors import UserError


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser("score", "Likelihood of images, and a heat map of each pixel's surprise.")
    add_run_options(parser)
    parser.add_argument(
        "images", nargs="+", help="image files of the size that the network was trained on"
    )
    parser.add_argument("--label", type=int, help="class of the images, if the network needs one")
    parser.add_argument("--out", default="surprise.png", help="heat map (default surprise.png)")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of lines"
    )
    options = parser.parse(arguments)

    import torch  # late: --help and errors need no torch

    from arlm.core import device_of
    from arlm.evaluation.likelihood import figures
    from arlm.reports.files import check_writable
    from arlm.reports.view import view_of
    from arlm.sampling import class_count, class_labels

    net, domain, *_ = open_network(options)
    view = view_of(domain)
    view.check_verb("score", options.run)
    classes = class_count(net.spec)
    if classes and options.label is None:
        raise UserError(f"--label: the network needs a class; give 0 to {classes - 1}")
    check_writable(Path(options.out))
    tokens = torch.stack([domain.read(Path(name), "image") for name in options.images])  # type: ignore[attr-defined]
    with torch.inference_mode():
        context = class_labels(net, options.label, len(tokens))
        nats = -net.log_prob(tokens.to(device_of(net)), context).double().cpu()
    found = {
        name: {"nats": float(row.sum())}
        | figures(float(row.sum()), len(row), len(row), domain.unit)
        for name, row in zip(options.images, nats, strict=True)
    }
    picture = view.write_heat_map(tokens, nats, Path(options.out))  # type: ignore[attr-defined]
    if options.json:
        print(json.dumps(found))
        return
    for name, figure in found.items():
        bits = figure[f"bits_per_{domain.unit}"]
        print(f"{name}: {figure['nats']:.2f} nats, {bits:.4f} bits/{domain.unit}")
    print(picture)
