"""BLEU as in bentrevett/pytorch-seq2seq: lower case, spaCy's tokens, one reference, no smoothing.

python -m tools.bench.tutorial_bleu TRANSLATIONS REFERENCES [--language en]

Both files are raw text with one sentence per line, plain or gz. Needs spaCy: pip install -e .[bench]. Only
the rules of its tokenizer are used, so no model is downloaded.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sacrebleu.metrics import BLEU

from arlm.__main__ import fail
from arlm.cli.parser import Parser
from arlm.data.pairs import aligned
from arlm.errors import UserError


def main(arguments: list[str]) -> None:
    """Compute and print BLEU."""
    parser = Parser("tutorial_bleu", "BLEU of lower-cased spaCy tokens.")
    parser.add_argument("translations", help="file with one translation per line")
    parser.add_argument("references", help="file with one reference per line")
    parser.add_argument(
        "--language", default="en", help="language of spaCy's tokenizer (default en)"
    )
    options = parser.parse(arguments)
    try:
        import spacy
    except ImportError:
        raise UserError("spacy: it is not installed; pip install -e .[bench]") from None
    tokenizer = spacy.blank(options.language).tokenizer
    pairs = aligned(Path(options.translations), Path(options.references), "files")
    ours, theirs = (
        [" ".join(token.text for token in tokenizer(line.lower())) for line in side]
        for side in pairs
    )
    bleu = BLEU(tokenize="none", smooth_method="none", force=True)
    print(bleu.corpus_score(ours, [theirs]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(fail(str(error)))
