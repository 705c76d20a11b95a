"""How decoding methods degenerate, measured on one network beside human text of equal length.

    python -m tools.degeneration methods runs/NAME --out study    every method: a table, a JSON file and pictures
    python -m tools.degeneration phrases runs/A runs/B --out study    repeated phrases: a table, a picture

`methods` continues prompts of the test text under each method. `phrases` repeats phrases of the test text, and
phrases of random tokens, and measures how likely each repetition is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from arlm.__main__ import fail
from arlm.cli.parser import Parser, finite
from arlm.data.text_module import TextDataModule
from arlm.errors import UserError, cannot_write, require
from arlm.inference.baselines import ngram
from arlm.inference.runs import Run, open_run
from arlm.reports.files import check_writable, write_text
from arlm.sampling import row_seeds
from tools.degeneration import pictures
from tools.degeneration.measures import Measured, held_out, measure
from tools.degeneration.methods import DEFAULT, parse_method
from tools.degeneration.phrases import Curve, goes_on, nats_by_repetition, random_phrases
from tools.degeneration.tables import figures_table, number, rates_table, table

LOOPS = (
    "draws",
    "top_p=0.9",
    "preset=notes",
    "greedy",
    "no_repeat_ngram=4,greedy",
    "dry=0.8,greedy",
)


def open_text(path: str) -> tuple[Run, TextDataModule]:
    """A run whose data is a text."""
    run = open_run(path)
    if not isinstance(run.data, TextDataModule):
        raise UserError(
            f"run: '{path}' models no text ({type(run.data).__name__}); give a run of a text"
        )
    return run, run.data


def methods(options: argparse.Namespace) -> None:
    """Measure every method, print the tables, and write them with the pictures."""
    run, data = open_text(options.run)
    net = run.loaded.net
    chosen = [parse_method(text, data.domain) for text in options.method or DEFAULT]
    rows = held_out(data, net, options.texts, options.prompt_tokens, options.new_tokens)
    judge = ngram(data)
    seeds = row_seeds(options.seed, options.texts)
    prompts = rows.tokens[:, : rows.prompted]
    found: dict[str, Measured] = {}
    for name, tokens in (("human text", rows.tokens), ("other human text", rows.others)):
        found[name] = measure(tokens, rows.prompted, data.domain, net, judge)
    for method in chosen:
        started = time.process_time()
        tokens = method(net, seeds, prompts, rows.tokens.shape[1])
        found[method.name] = measure(tokens, rows.prompted, data.domain, net, judge)
        print(f"{method.name}: {time.process_time() - started:.1f} s", file=sys.stderr, flush=True)
    named = {method.name: method for method in chosen}
    text = f"{figures_table(found)}\n{rates_table(found)}"
    print(text)
    out: Path = options.out
    write_text(text, out / "methods.md", "--out")
    record = {
        name: {"figures": one.figures, "characters": one.rates, "text": one.texts[0]}
        for name, one in found.items()
    }
    lines = json.dumps(finite(record), indent=1, ensure_ascii=False)
    write_text(lines + "\n", out / "methods.json", "--out")
    pictures.scatter(found, named, out / "methods.png")
    pictures.zipf(found, out / "zipf.png")
    pictures.character_rates(found, named, out / "characters.png")


def encoded(data: TextDataModule, phrase: str) -> Tensor:
    """The tokens of a phrase."""
    try:
        return data.domain.encode(phrase)
    except UserError as error:
        raise UserError(f"--phrase: {str(error).removeprefix('text: ')}") from None


def phrases(options: argparse.Namespace) -> None:
    """Measure repeated phrases under each network, print the tables, and write them with a picture."""
    times, size = options.repetitions, options.phrase_tokens
    require(times >= 1, "--repetitions", times, "choose at least 1")
    require(size >= 1, "--phrase-tokens", size, "choose at least 1")
    require(options.texts >= 1, "--texts", options.texts, "choose at least 1")
    panels: dict[str, list[Curve]] = {}
    again: dict[str, list[str]] = {}
    for path in options.runs:
        run, data = open_text(path)
        net = run.loaded.net
        chosen = [parse_method(text, data.domain) for text in options.method or LOOPS]
        corpus = data.corpus("test")
        room = len(corpus) - size
        if room < options.texts:
            raise UserError(
                f"--texts: the test text has {len(corpus)} tokens; choose fewer phrases"
            )
        real = corpus.read(torch.linspace(0, room, options.texts).long(), size)
        sets = {
            "phrases of the test text": real,
            "random tokens": random_phrases(net, options.texts, size),
        }
        for text in options.phrase:
            sets[repr(text)] = encoded(data, text)[None]
        same = [other for other in options.runs if Path(other).name == Path(path).name]
        name = Path(path).name if len(same) == 1 else path
        panels[name] = [
            Curve(title, nats_by_repetition(net, tokens, times)) for title, tokens in sets.items()
        ]
        shares = [f"{goes_on(net, m, real):.0%}" for m in chosen]
        again[name] = shares
    head = ["nats a token, by repetition", *map(str, range(1, times + 1))]
    lines = [
        [f"{name}: {curve.name}", *(number(value, 2) for value in curve.nats.mean(0).tolist())]
        for name, curves in panels.items()
        for curve in curves
    ]
    names = options.method or LOOPS
    loops = [[method, *(again[name][i] for name in again)] for i, method in enumerate(names)]
    text = f"{table(head, lines)}\n{table(['written a fourth time', *again], loops)}"
    print(text)
    write_text(text, options.out / "phrases.md", "--out")
    pictures.phrase_curves(panels, options.out / "phrases.png")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse and check the options."""
    what = arguments[0] if arguments else ""
    if what not in ("methods", "phrases"):
        raise UserError(f"command: {what!r} is not known; choose methods or phrases")
    parser = Parser("degeneration", __doc__.split("\n")[0])
    if what == "methods":
        parser.add_argument("run", help="a run of a text, or a .ckpt file")
        parser.add_argument("--texts", type=int, default=64, help="of each method (default 64)")
        parser.add_argument("--prompt-tokens", type=int, default=32, help="default 32")
        parser.add_argument("--new-tokens", type=int, default=200, help="default 200")
        parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    else:
        parser.add_argument("runs", nargs="+", help="runs of texts, or .ckpt files")
        parser.add_argument("--texts", type=int, default=64, help="phrases (default 64)")
        parser.add_argument(
            "--phrase", action="append", default=[], help="one more; repeat it for several"
        )
        parser.add_argument("--phrase-tokens", type=int, default=12, help="default 12")
        parser.add_argument("--repetitions", type=int, default=6, help="default 6")
    parser.add_argument(
        "--method",
        action="append",
        help="draws, processors such as temperature=0.7,top_p=0.9, preset=NAME, beam=N or contrastive=K:penalty=A; "
        "repeat it for several",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("degeneration"), help="folder of the results"
    )
    options = parser.parse(arguments[1:])
    options.what = what
    return options


def main(arguments: Sequence[str]) -> None:
    """Run one of the two commands."""
    options = parse(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(options.out, error, "--out") from None
    check_writable(options.out / "methods.md")
    torch.set_num_threads(1)
    (methods if options.what == "methods" else phrases)(options)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(fail(str(error)))
