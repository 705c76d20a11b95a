"""`arlm detect RUN TEXT|FILE ...`: whether texts carry a watermark."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser, print_json
from arlm.cli.watermarks import add_watermark_option, watermark_of
from arlm.errors import UserError

if TYPE_CHECKING:
    from arlm.domains import Domain
    from arlm.sampling import Detection, Watermark

SHOWN = 40  # characters of a text in its line


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the options."""
    parser = Parser(
        "detect",
        "Test texts for a watermark. p is the probability that a text without the mark has a statistic "
        "at least as large.",
    )
    parser.add_argument(
        "run",
        help="the folder or the name of a run, or a .ckpt file, for its tokenizer; or a tokenizer's .json file",
    )
    parser.add_argument(
        "texts",
        nargs="+",
        metavar="TEXT|FILE",
        help="text files; .jsonl files with a text in each line, as `arlm sample --json` prints them; - for the "
        "standard input; or texts themselves, which have white space in them",
    )
    add_watermark_option(parser, "as `arlm sample` got it", required=True)
    parser.add_argument(
        "--prompt",
        default="",
        help="the beginning of each text, which was given and is not scored, as `arlm sample` got it; a line of a .jsonl "
        "file may have a prompt of its own, as `arlm sample --json` prints it",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module, package or FILE.py whose classes the checkpoint may name, beside arlm's own",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object for each text")
    return parser.parse(arguments)


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    options = parse(arguments)
    with quick_imports():  # late: --help and errors need no torch
        from arlm.reports.view import view_of

    mark = watermark_of(options.watermark)
    domain: Any = domain_of(options.run, options.trust)
    view_of(domain).check_verb("detect", options.run)
    found = []  # first all, so that a refusal leaves nothing half printed
    for argument in options.texts:
        for name, text, prompt in texts_of(argument, options.prompt):
            own = without_prompt(
                text, prompt, name, "--prompt" if prompt is options.prompt else "prompt"
            )
            try:
                # Not strict, since a token for unknown text is drawn as well.
                found.append((name, mark.detect(domain.encode(own, strict=False))))
            except UserError as error:
                raise UserError(f"{name}: {str(error).removeprefix('text: ')}") from None
    for name, detection in found:
        if options.json:
            kind = {"file": name, "watermark": mark.name, "measures": mark.measures}
            print_json(kind | detection._asdict())
        else:
            print(f"{name}: {summary(mark, detection)}")


def summary(mark: Watermark, found: Detection) -> str:
    """What was found, in one line."""
    return (
        f"{found.tokens:,} tokens scored, {mark.measures} {found.statistic:.4g} "
        f"(without the mark {found.expected:.4g}), z {found.z:.2f}, p {found.p:.2g}"
    )


def domain_of(run: str, trusted: Sequence[str]) -> Domain:
    """The domain of a checkpoint, without its network; or that of the texts of a tokenizer's file."""
    from arlm.checkpoints import load_domain

    if Path(run).suffix != ".json":
        return load_domain(run, trusted)
    from arlm.data.text_files import read_text
    from arlm.domains import TextDomain
    from arlm.tokenizers import BPETokenizer

    return TextDomain(BPETokenizer(read_text(Path(run), "RUN")))


def texts_of(argument: str, prompt: str) -> Iterator[tuple[str, str, str]]:
    """Names, texts and prompts of an argument; `prompt` is that of texts without one of their own."""
    from arlm.reports.text_view import text_of

    path = Path(argument)
    if any(map(str.isspace, argument)) and not _is_file(path):
        shown = " ".join(argument.split())
        yield shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}...", argument, prompt
        return
    text = text_of(argument)
    if path.suffix != ".jsonl":
        yield argument, text.removesuffix("\n"), prompt  # without the one that ends the file
        return
    if not text.strip():
        raise UserError(f"{argument}: it has no lines; write it with `arlm sample --json`")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise UserError(
                f"{argument}: line {number} is no JSON object with a text; write the file with "
                "`arlm sample --json`"
            )
        own = record.get("prompt", prompt)
        if not isinstance(own, str):
            raise UserError(
                f"{argument}: line {number} has a prompt that is no text, {own!r}; write a text, or omit it"
            )
        yield f"{argument}:{number}", record["text"], own


def _is_file(path: Path) -> bool:
    """Whether a path is that of a file; a long text is none."""
    try:
        return path.exists()
    except OSError:
        return False


def without_prompt(text: str, prompt: str, name: str, field: str) -> str:
    """What follows the prompt in a text; errors name `field`."""
    if not text.startswith(prompt):
        raise UserError(
            f"{field}: {prompt!r} is not the beginning of {name}; give the text as `arlm sample` prints it, or "
            "omit the prompt"
        )
    return text[len(prompt) :]
