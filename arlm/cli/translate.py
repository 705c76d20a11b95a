"""`arlm translate RUN [FILE ...]`: translate each line, or caption each picture, by beam search or by sampling."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from arlm.cli.parser import (
    Parser,
    add_beam_options,
    add_run_options,
    check_beam_options,
    open_network,
)
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor
    from arlm.inference.translator import Source, Translation, Translator

MAPS = 6  # number of attention maps in the picture


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse and check the options."""
    parser = Parser(
        "translate",
        "Translate a file, or standard input, line by line; or write the captions of pictures.",
    )
    add_run_options(parser)
    parser.add_argument(
        "files",
        nargs="*",
        default=["-"],
        metavar="FILE",
        help="files with one sentence per line, or pictures; - is standard input (default), with one sentence, "
        "or the path of one picture, per line",
    )
    add_beam_options(parser)
    parser.add_argument(
        "--n-best",
        type=int,
        default=1,
        help="translations per sentence; above 1 they are printed with their scores (default 1)",
    )
    parser.add_argument(
        "--processors",
        help="sample with these logits processors instead of searching, "
        'such as "temperature=0.8,top_p=0.9" or "greedy"',
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (default 0)")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=100,
        help="lines that are translated together (default 100)",
    )
    parser.add_argument("--out", help="file for the translations (default: standard output)")
    parser.add_argument(
        "--reference", help="file of reference translations, for BLEU, chrF and exact matches"
    )
    parser.add_argument(
        "--attention", help=f"a .png for attention maps of the first {MAPS} sentences"
    )
    options = parser.parse(arguments)
    require(options.batch_size >= 1, "--batch-size", options.batch_size, "choose at least 1")
    check_beam_options(options)
    largest = options.beam if options.processors is None else 10**6
    require(1 <= options.n_best <= largest, "--n-best", options.n_best, f"choose 1 to {largest}")
    return options


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    options = parse(arguments)
    from arlm.data.pairs import lines_of  # late: --help and errors need no torch
    from arlm.inference.memory import keep_freed_memory
    from arlm.inference.translator import Translator
    from arlm.reports.files import check_writable, write_bytes
    from arlm.reports.view import view_of
    from arlm.sampling.processors import parse_processors

    processors = None if options.processors is None else parse_processors(options.processors)
    loaded = open_network(options)
    view = view_of(loaded.domain)
    view.check_verb("translate", options.run)
    search = (options.beam, options.n_best, options.length_penalty)
    domain: Any = loaded.domain
    translator = Translator(loaded.net, domain, *search, processors, options.seed)
    references = lines_of(Path(options.reference), "--reference") if options.reference else None
    for path in filter(None, (options.out, options.attention)):
        check_writable(Path(path))
    if options.attention:
        check_attends(loaded.net)
    keep_freed_memory()
    sources = view.sources(options.files)
    first = list(islice(sources, 1))  # what cannot be read is refused before --out is emptied
    with open_output(options.out) as out:
        translations, examples = translate(translator, chain(first, sources), options, out)
    if options.attention:
        picture = view.attention_map(loaded.net, examples)
        assert picture is not None  # check_attends has refused networks without attention
        print(write_bytes(picture, Path(options.attention).with_suffix(".png")), file=sys.stderr)
    if references is not None:
        print_scores(translations, references, options.reference)


def check_attends(net: Autoregressor) -> None:
    """Refuse attention maps for a network without attention."""
    import torch

    from arlm.reports.attention_map import attention_of

    token = torch.zeros(1, dtype=torch.long)
    if attention_of(net, token, token) is None:
        raise UserError(f"--attention: {type(net).__name__} was trained without attention; omit it")


def translate(
    translator: Translator, given: Iterable[Source], options: argparse.Namespace, out: IO[str]
) -> tuple[list[str], list[tuple[Tensor, Translation]]]:
    """Write translations batch by batch; if a source is refused, the translations before it are written first.

    Returns: the best translation of each source, and the tokens of the first ones, each with its best
        translation, for attention maps.
    """
    best: list[str] = []
    examples: list[tuple[Tensor, Translation]] = []
    remaining = iter(given)
    while True:
        sources, refusal = [], None
        try:
            for source in islice(remaining, options.batch_size):
                sources.append(translator.encode(source.native, source.name))
        except UserError as error:
            refusal = error
        for tokens, found in zip(sources, translator(sources, first=len(best)), strict=True):
            number = len(best)
            for translation in found:
                if options.n_best == 1:
                    print(translation.text, file=out)
                else:
                    scores = (f"{v:.4f}" for v in (translation.log_prob, translation.score))
                    print(number + 1, translation.text, *scores, sep="\t", file=out)
            best.append(found[0].text)
            if number < MAPS:
                examples.append((tokens, found[0]))
        out.flush()
        if refusal is not None:
            raise refusal
        if len(sources) < options.batch_size:
            break
    if not best:
        raise UserError(f"{' '.join(options.files)}: it is empty; give one sentence per line")
    return best, examples


def open_output(name: str | None) -> AbstractContextManager[IO[str]]:
    """Open the file for translations, or standard output."""
    return nullcontext(sys.stdout) if name is None else open(name, "w", encoding="utf-8")


def print_scores(translations: Sequence[str], references: Sequence[str], name: str) -> None:
    """Print BLEU, chrF and exact matches, with SacreBLEU's signatures."""
    from arlm.evaluation.bleu import score_translations

    if len(translations) != len(references):
        raise UserError(
            f"--reference: '{name}' has {len(references)} lines for {len(translations)} translations; "
            "give one for each"
        )
    scores = score_translations(translations, references)
    figures = ", ".join(f"{key} {value:.2f}" for key, value in scores.figures.items())
    print(figures, scores.signature, scores.chrf_signature, sep="\n", file=sys.stderr)
