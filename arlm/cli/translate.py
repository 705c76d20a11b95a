"""`arlm translate RUN [FILE ...]`: translate each line, or caption each picture, by beam search or by sampling."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from arlm.cli.decoding import add_decoding_options, bind_all, chosen_processors, given_options
from arlm.cli.imports import quick_imports
from arlm.cli.parser import (
    Parser,
    add_beam_options,
    add_run_options,
    check_beam_options,
    finite,
    open_network,
)
from arlm.errors import UserError, require

if TYPE_CHECKING:
    from torch import Tensor

    from arlm.core import Autoregressor
    from arlm.inference.translator import Source, Translation, Translator
    from arlm.reports.view import View

MAPS = 6  # number of attention maps in the picture
TREES = 3  # number of searches in the picture
MOST = 10**6  # lines that are translated together, and samples of a sentence


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
    parser.add_argument(
        "-n",
        "--n-best",
        type=int,
        default=1,
        help="translations per sentence; above 1 they are printed with their scores (default 1)",
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
        "--json",
        action="store_true",
        help="one JSON object a line for each sentence: the source, and its translations with their scores",
    )
    parser.add_argument(
        "--reference", help="file of reference translations, for BLEU, chrF and exact matches"
    )
    parser.add_argument(
        "--attention", help=f"a .png for attention maps of the first {MAPS} sentences"
    )
    search = add_beam_options(parser)
    search.add_argument(
        "--tree",
        help=f"a picture (.png) or a page (.html) of what was kept at each step, for the first {TREES} sentences",
    )
    add_decoding_options(
        parser,
        "Without these options, the likeliest translation is searched for. With any of them, translations are "
        "sampled; --temperature 1 draws from the network's own distribution.",
    )
    options = parser.parse(arguments)
    options.command = list(arguments)
    size = options.batch_size
    require(1 <= size <= MOST, "--batch-size", size, f"choose 1 to {MOST}")
    check_decoding(options)
    return options


def check_decoding(options: argparse.Namespace) -> None:
    """Refuse options of both ways of decoding together; `options.sampled` says which of them it is."""
    drawing = given_options(options)
    options.sampled = bool(drawing)
    for name in ("beam", "length_penalty", "tree"):
        if options.sampled and getattr(options, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')}: it belongs to the search, but {drawing[0]} samples; omit one of them"
            )
    check_beam_options(options)
    largest = MOST if options.sampled else options.beam
    require(1 <= options.n_best <= largest, "--n-best", options.n_best, f"choose 1 to {largest}")


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    options = parse(arguments)
    with quick_imports():  # late: --help and errors need no torch
        from arlm.data.pairs import lines_of
        from arlm.inference.memory import keep_freed_memory
        from arlm.inference.translator import Translator
        from arlm.reports.files import PAGES, check_writable, write_bytes, writing_text
        from arlm.reports.view import view_of

    processors = chosen_processors(options) if options.sampled else None
    loaded = open_network(options)
    view = view_of(loaded.domain)
    view.check_verb("translate", options.run)
    search = (options.beam, options.n_best, options.length_penalty)
    domain: Any = loaded.domain
    processors = None if processors is None else bind_all(processors, domain)
    translator = Translator(loaded.net, domain, *search, processors, options.seed)
    references = lines_of(Path(options.reference), "--reference") if options.reference else None
    if options.out:
        check_writable(Path(options.out))
    if options.attention:
        check_writable(Path(options.attention), "--attention", (".png",))
        check_attends(loaded.net)
    if options.tree:
        check_writable(Path(options.tree), "--tree", (".png", *PAGES))
    keep_freed_memory()
    sources = view.sources(options.files)
    first = list(islice(sources, 1))  # what cannot be read is refused before --out is emptied
    if not first:
        files = ", ".join("standard input" if file == "-" else file for file in options.files)
        raise UserError(f"{files}: it is empty; give one {view.line} per line")
    with writing_text(Path(options.out)) if options.out else nullcontext(sys.stdout) as out:
        translations, examples, refusal = translate(translator, chain(first, sources), options, out)
    if refusal is not None:
        raise refusal
    if options.attention:
        picture = view.attention_map(loaded.net, [example[1:] for example in examples])
        assert picture is not None  # check_attends has refused networks without attention
        print(write_bytes(picture, Path(options.attention)), file=sys.stderr)
    if options.tree:
        write_trees(translator, view, examples[:TREES], options)
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
) -> tuple[list[str], list[tuple[str, Tensor, Translation]], UserError | None]:
    """Write translations batch by batch, up to the first source that is refused.

    Returns: the best translation of each source; the first sources, each with its tokens and its best
        translation, for pictures; and the refusal.
    """
    best: list[str] = []
    examples: list[tuple[str, Tensor, Translation]] = []
    refusal: UserError | None = None
    remaining = iter(given)
    while refusal is None:
        sources, texts = [], []
        try:
            for source in islice(remaining, options.batch_size):
                sources.append(translator.encode(source.native, source.name))
                texts.append(source.text)
        except UserError as error:
            refusal = error
        batch = zip(sources, texts, translator(sources, first=len(best)), strict=True)
        for tokens, text, found in batch:
            number = len(best)
            print(*shown(number, text, found, options), sep="\n", file=out)
            best.append(found[0].text)
            if number < MAPS:
                examples.append((text, tokens, found[0]))
        out.flush()
        if len(sources) < options.batch_size:
            break
    return best, examples, refusal


def shown(
    number: int, source: str, found: Sequence[Translation], options: argparse.Namespace
) -> list[str]:
    """The lines that are written for the translations of one source, whose number counts from 0."""
    if options.json:
        translations = [
            {"text": one.text, "log_prob": one.log_prob, "score": one.score} for one in found
        ]
        one_line = {"index": number, "source": source, "translations": translations}
        return [json.dumps(finite(one_line), ensure_ascii=False, allow_nan=False)]
    if options.n_best == 1:
        return [found[0].text]
    return [f"{number + 1}\t{one.text}\t{one.log_prob:.4f}\t{one.score:.4f}" for one in found]


def write_trees(
    translator: Translator,
    view: View,
    examples: Sequence[tuple[str, Tensor, Translation]],
    options: argparse.Namespace,
) -> None:
    """Write the searches of some sources, each searched once more by itself."""
    from arlm.reports.beam_tree import Search, write_tree

    searches = [Search(text, translator.tree(tokens), view) for text, tokens, _ in examples]
    command = f"arlm translate {shlex.join(options.command)}"
    print(write_tree(searches, Path(options.tree), command), file=sys.stderr)


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
