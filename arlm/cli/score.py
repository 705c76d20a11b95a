"""`arlm score CKPT IMAGE ...`: likelihood of images under a checkpoint, and where they surprise it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from arlm.cli.parser import Parser
from arlm.errors import UserError


def main(arguments: Sequence[str]) -> None:
    """Run the verb."""
    parser = Parser("score", "Likelihood of images, and a heat map of each pixel's surprise.")
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument("images", nargs="+", help="image files of the network's size")
    parser.add_argument("--label", type=int, help="class of the images, if the network needs one")
    parser.add_argument("--out", default="surprise.png", help="picture (default surprise.png)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse(arguments)

    import torch  # only now

    from arlm.checkpoints import load
    from arlm.cli.sample import labels
    from arlm.domains import ImageDomain
    from arlm.reports.images import check_writable, heat_map, write_image

    loaded = load(options.checkpoint)
    net, domain = loaded.net, loaded.domain
    if not isinstance(domain, ImageDomain):
        raise UserError(
            f"checkpoint: '{options.checkpoint}' models text; give one of images, "
            "or use `arlm evaluate`"
        )
    if net.spec.context is not None and options.label is None:
        raise UserError(
            f"--label: the network needs a class; give 0 to {net.spec.context.vocab_size - 1}"
        )
    check_writable(Path(options.out))
    rows = [domain.read(Path(name), "image") for name in options.images]
    tokens = torch.stack(rows)
    with torch.inference_mode():
        nats = -net.log_prob(tokens, labels(net, options.label, len(tokens))).double()
    pixels = nats.view(-1, domain.height, domain.width, domain.channels).sum(-1)
    picture = write_image(heat_map(domain.decode(tokens), pixels / math.log(2)), Path(options.out))
    figures = {
        name: {"nats": float(total), "bits_per_dim": float(total) / math.log(2) / len(row)}
        for name, total, row in zip(options.images, nats.sum(1), tokens, strict=True)
    }
    if options.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name}: {figure['nats']:.2f} nats, {figure['bits_per_dim']:.4f} bits/dim")
    print(picture)
