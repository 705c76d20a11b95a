"""`arlm translate CKPT [FILE]`: a translation for each line, by beam search or by sampling."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from arlm.cli.parser import Parser, add_beam_options, check_beam_options
from arlm.data.text_files import UNREADABLE, opened, unreadable
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor
    from arlm.inference.translator import Translation, Translator

DRAWN = 6  # attention maps in a picture


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options of the verb."""
    parser = Parser("translate", "Translate a file, or standard input, line by line.")
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument(
        "file", nargs="?", default="-", help="one sentence a line; - is standard input (default)"
    )
    add_beam_options(parser)
    parser.add_argument("--n-best", type=int, default=1, help="of each sentence, with their scores")
    parser.add_argument(
        "--processors",
        help='draw instead of searching, such as "temperature=0.8,top_p=0.9" or "greedy"',
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument(
        "--batch-size", type=int, default=100, help="lines read before they are translated"
    )
    parser.add_argument("--out", help="a file (default: standard output)")
    parser.add_argument("--reference", help="a file to compare with: BLEU, chrF and exact matches")
    parser.add_argument(
        "--attention", help=f"a .png for heat maps of the first {DRAWN} sentences' attention"
    )
    options = parser.parse(arguments)
    require(options.batch_size >= 1, "--batch-size", options.batch_size, "choose at least 1")
    check_beam_options(options)
    most = options.beam if options.processors is None else 10**6
    require(1 <= options.n_best <= most, "--n-best", options.n_best, f"choose 1 to {most}")
    return options


def main(arguments: Sequence[str]) -> None:
    """Run the verb."""
    options = parse(arguments)
    from arlm.checkpoints import load  # torch is imported only now
    from arlm.data.pairs import lines_of
    from arlm.inference.memory import keep_freed_memory
    from arlm.inference.translator import Translator
    from arlm.reports.files import check_writable
    from arlm.reports.view import view_of
    from arlm.sampling.processors import parse_processors

    processors = None if options.processors is None else parse_processors(options.processors)
    loaded = load(options.checkpoint)
    view_of(loaded.domain).check_verb("translate", options.checkpoint)
    search = (options.beam, options.n_best, options.length_penalty)
    domain: Any = loaded.domain
    translator = Translator(loaded.net, domain, *search, processors, options.seed)
    references = lines_of(Path(options.reference), "--reference") if options.reference else None
    for path in filter(None, (options.out, options.attention)):
        check_writable(Path(path))
    if options.attention:
        check_attends(loaded.net)
    keep_freed_memory()
    with stream(options.file) as given, written(options.out) as out:
        results, shown = translate(translator, given, options, out)
    if options.attention:
        draw(translator, shown, Path(options.attention))
    if references is not None:
        compare(results, references, options.reference)


def check_attends(net: Autoregressor) -> None:
    """Refuse to draw the attention of a network that has none."""
    import torch

    from arlm.reports.attention_map import attention_of

    one = torch.zeros(1, dtype=torch.long)
    if attention_of(net, one, one) is None:
        raise UserError(f"--attention: {type(net).__name__} was trained without attention; omit it")


def translate(
    translator: Translator, given: IO[bytes], options: argparse.Namespace, out: IO[str]
) -> tuple[list[str], list[tuple[Tensor, Translation]]]:
    """Write translations, batch by batch; what stands before a line that is refused is written too.

    Returns: the best translation of each line, and the first lines with theirs, to be drawn.
    """
    best: list[str] = []
    shown: list[tuple[Tensor, Translation]] = []
    lines = numbered(given, options.file)
    while True:
        sources, refused = [], None
        try:
            for name, line in islice(lines, options.batch_size):
                sources.append(translator.encode(line, name))
        except UserError as error:
            refused = error
        for source, found in zip(sources, translator(sources, first=len(best)), strict=True):
            number = len(best)
            for one in found:
                if options.n_best == 1:
                    print(one.text, file=out)
                else:
                    print(number + 1, one.text, *(f"{v:.4f}" for v in one[2:]), sep="\t", file=out)
            best.append(found[0].text)
            if number < DRAWN:
                shown.append((source, found[0]))
        out.flush()
        if refused is not None:
            raise refused
        if len(sources) < options.batch_size:
            break
    if not best:
        raise UserError(f"{options.file}: it is empty; give one sentence a line")
    return best, shown


def numbered(given: IO[bytes], name: str) -> Iterator[tuple[str, str]]:
    """Each line, and what to call it in errors."""
    file = "standard input" if name == "-" else f"'{name}'"
    where = file
    try:
        for number, line in enumerate(given, start=1):
            where = f"line {number} of {file}"
            yield where, line.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: byte {error.start + 1} is not UTF-8; convert it to UTF-8"
        ) from None
    except UNREADABLE as error:  # a gz file that is cut short
        raise unreadable("file", name, error) from None


def stream(name: str) -> IO[bytes]:
    """A file, plain or gz, or standard input, as bytes."""
    if name == "-":
        if sys.stdin is None or sys.stdin.closed:
            raise UserError("standard input: it is closed; name a file, or pipe text into it")
        return sys.stdin.buffer
    try:
        return opened(Path(name))
    except UNREADABLE as error:
        raise unreadable("file", name, error) from None


def written(name: str | None) -> AbstractContextManager[IO[str]]:
    """Where translations go."""
    return nullcontext(sys.stdout) if name is None else open(name, "w", encoding="utf-8")


def draw(translator: Translator, shown: Sequence[tuple[Tensor, Translation]], path: Path) -> None:
    """Write heat maps of attention."""
    from arlm.reports.attention_map import attention_maps
    from arlm.reports.files import write_bytes

    picture = attention_maps(translator.net, translator.domain, shown)
    assert picture is not None  # check_attends has refused networks without attention
    print(write_bytes(picture, path.with_suffix(".png")), file=sys.stderr)


def compare(translations: Sequence[str], references: Sequence[str], name: str) -> None:
    """Print how near they come."""
    from arlm.evaluation.bleu import score_translations

    if len(translations) != len(references):
        raise UserError(
            f"--reference: '{name}' has {len(references)} lines for {len(translations)} translations; "
            "give one for each"
        )
    scores = score_translations(translations, references)
    told = ", ".join(f"{key} {value:.2f}" for key, value in scores.figures.items())
    print(told, scores.signature, scores.chrf_signature, sep="\n", file=sys.stderr)
