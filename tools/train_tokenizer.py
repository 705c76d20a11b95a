"""Train a byte-level BPE tokenizer on text files and write it as JSON.

python tools/train_tokenizer.py FILE [FILE ...] --vocab-size 1024 --out tokenizer.json
"""

from __future__ import annotations

import sys
from pathlib import Path

from arlm.__main__ import fail
from arlm.cli.parser import Parser
from arlm.data.text_files import read_text
from arlm.errors import UserError, require
from arlm.reports.files import write_text
from arlm.tokenizers import BPETokenizer


def main(arguments: list[str]) -> None:
    """Train, write, and print the size and the bytes per token."""
    parser = Parser("train_tokenizer", "Train a byte-level BPE tokenizer on text files.")
    parser.add_argument("files", nargs="+", help="UTF-8 text files")
    parser.add_argument(
        "--vocab-size",
        type=int,
        default=1024,
        help="number of tokens: 256 bytes and the merges (default 1024)",
    )
    parser.add_argument(
        "--out", default="tokenizer.json", help="the JSON file (default tokenizer.json)"
    )
    options = parser.parse(arguments)
    size = options.vocab_size
    require(size >= 256, "--vocab-size", size, "choose at least 256, one for each byte")
    texts = [read_text(Path(file), "files") for file in options.files]
    if not any(texts):
        raise UserError(f"files: {options.files} are empty; give a text to train on")
    tokenizer = BPETokenizer.train(texts, size)
    write_text(tokenizer.json_text, Path(options.out), "--out")
    if tokenizer.vocab_size < size:
        print(f"note: the text gave only {tokenizer.vocab_size} tokens", file=sys.stderr)
    ratio = sum(len(t.encode()) for t in texts) / sum(len(tokenizer.encode(t)) for t in texts)
    print(f"{options.out}: {tokenizer.vocab_size} tokens, {ratio:.2f} bytes per token")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(fail(str(error)))
