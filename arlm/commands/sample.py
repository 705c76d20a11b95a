"""`arlm sample CKPT`: draw samples from a checkpoint, as a picture or as text."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from arlm.commands import Parser, shows_progress
from arlm.errors import UserError, require


def main(arguments: Sequence[str]) -> None:
    """Run the verb."""
    parser = Parser("sample", "Draw samples from a checkpoint, as a picture or as text.")
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument("--n", type=int, default=16, help="rows to draw (default 16)")
    parser.add_argument("--seed", type=int, default=0, help="of the rows (default 0)")
    parser.add_argument(
        "--rules", default="", help='such as "temperature=0.8,top_p=0.9" or "greedy", in this order'
    )
    parser.add_argument("--prompt", default="", help="text to go on from")
    parser.add_argument("--length", type=int, help="tokens in a row, prompt included")
    parser.add_argument("--out", help="a .png for images, a .txt for text (default: print text)")
    options = parser.parse(arguments)
    require(options.n >= 1, "--n", options.n, "choose at least 1")
    if options.length is not None:
        require(options.length >= 1, "--length", options.length, "choose at least 1")

    from arlm.checkpoint import load  # torch is imported only now
    from arlm.domains import ImageDomain
    from arlm.pictures import check_writable, write_samples
    from arlm.rules import parse_rules
    from arlm.sampling import generate, row_seeds

    rules = parse_rules(options.rules)
    net, domain, *_ = load(options.checkpoint)
    pictures = isinstance(domain, ImageDomain)
    if pictures and options.prompt:
        raise UserError(
            f"--prompt: {options.prompt!r} given, but the checkpoint draws images; omit it"
        )
    if pictures and options.length is not None:
        raise UserError("--length: images have a fixed size; omit it")
    out = Path(options.out or "samples.png") if pictures or options.out else None
    if out is not None:
        check_writable(out)

    length = options.length or net.spec.length
    forced = None
    if options.prompt:
        forced = prompt_tokens(domain, options.prompt, length).expand(options.n, -1)
    began = time.perf_counter()
    with Progress(length, options.n) as progress:
        seeds = row_seeds(options.seed, options.n)
        tokens = generate(
            net, seeds, length, rules=rules, forced=forced, progress=progress.update
        ).tokens
    speed = tokens.numel() / (time.perf_counter() - began)
    if out is not None:
        print(write_samples(domain, tokens, out.with_suffix("")))
    else:
        for index, row in enumerate(tokens):
            print(f"--- {index}", domain.decode(row), sep="\n")
    print(f"{tokens.numel()} tokens, {speed:.0f} tokens/s", file=sys.stderr)


def prompt_tokens(domain, prompt: str, length: int):
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


class Progress:
    """A bar of tokens per second over all rows."""

    def __init__(self, length: int, rows: int) -> None:
        from tqdm import tqdm

        self.rows = rows
        self.bar = tqdm(
            total=length * rows, unit="tok", desc="sampling", disable=not shows_progress()
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, positions: int) -> None:
        """Count finished positions."""
        self.bar.update(positions * self.rows)
