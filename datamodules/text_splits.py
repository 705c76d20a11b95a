"""Text with a file for each split, such as Penn Treebank and WikiText."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from arlm.data.corpus import Piece, remembered, texts
from arlm.data.folders import Split, find_file, prepared_folder
from arlm.data.text_module import FilesDataModule, make_tokenizer
from arlm.domains import TextDomain
from arlm.errors import UserError
from arlm.storage import replace_file
from arlm.tokenizers import CharacterTokenizer, WordTokenizer

Files = str | list[str]


class TextSplits(FilesDataModule):
    """One file or several for each split. The tokens are prepared once in the user cache.

    Args:
        train, val, test: file or files; relative paths are looked up in the working folder, then in
            `data_dir`.
        tokenizer: "word": words separated by white space, `<eos>` for the end of a line, and `<unk>` for
            words outside the vocabulary, as Penn Treebank and WikiText are published; "byte";
            "character"; or the path of a tokenizer's JSON from tools/train_tokenizer.py.
        words_from: splits that the vocabulary of words or characters is collected from: "train", or "all"
            as in pytorch/examples.
        separator: text after which a document ends; without one, a file is a document.
        data_dir: folder of data sets; by default $ARLM_DATA_DIR or the user cache.
        options: see TextDataModule: length, batching, stride, streams, overlap, separate_documents, ...

    References:
        | Building a Large Annotated Corpus of English: The Penn Treebank (Marcus et al., 1993), in
        | Mikolov's form | https://aclanthology.org/J93-2004
        | Pointer Sentinel Mixture Models (Merity et al., 2017), WikiText
        | https://arxiv.org/abs/1609.07843
    """

    def __init__(
        self,
        train: Files,
        val: Files,
        test: Files,
        tokenizer: str = "word",
        words_from: Literal["train", "all"] = "train",
        separator: str | None = None,
        data_dir: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.separator, self.data_dir = separator, data_dir
        splits: dict[Split, Files] = {"train": train, "val": val, "test": test}
        self.name = train if isinstance(train, str) else ", ".join(train)
        self.files = {split: self._find(split, files) for split, files in splits.items()}
        all_files = [file for files in self.files.values() for file in files]
        vocabulary_files = self.files["train"] if words_from == "train" else all_files
        self.domain = TextDomain(
            make_tokenizer(
                tokenizer,
                lambda: texts(vocabulary_files, False),
                word=lambda _: WordTokenizer(vocabulary(vocabulary_files)),  # counted only once
                character=partial(CharacterTokenizer.train, unknown=words_from == "train"),
            )
        )

    def _find(self, split: Split, files: Files) -> list[Path]:
        names = [files] if isinstance(files, str) else files
        return [find_file(name, self.data_dir, f"data.{split}") for name in names]

    def pieces(self, split: Split) -> list[Piece]:
        return [Piece(path, 0, path.stat().st_size) for path in self.files[split]]


def vocabulary(files: Sequence[Path]) -> list[str]:
    """Words of files, most frequent first; counted once and cached with the prepared corpora."""

    def content() -> str:
        digest = hashlib.sha256()
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:20]

    name = remembered(files, "words", prepared_folder(), content)
    cached = prepared_folder() / f"{name}.words.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # damaged: counted again
        found = json.loads(cached.read_bytes())
        if hashlib.sha256(json.dumps(found["words"]).encode()).hexdigest() == found["sha256"]:
            return found["words"]
    counts: Counter[str] = Counter()
    for text in texts(files):
        counts.update(text.split())
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    if not words:
        raise UserError(f"data: '{files[0]}' holds no words; give text")
    checksum = hashlib.sha256(json.dumps(words).encode()).hexdigest()
    with suppress(OSError):  # without room for them, they are counted again next time
        cached.parent.mkdir(parents=True, exist_ok=True)
        replace_file(cached, json.dumps({"words": words, "sha256": checksum}).encode())
    return words
