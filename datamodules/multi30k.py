"""Multi30k: English captions of 31,000 photographs, and their translations into German.

References:
    | Multi30K: Multilingual English-German Image Descriptions (Elliott et al., 2016)
    | https://arxiv.org/abs/1605.00459
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arlm.data.folders import Split, data_folder
from arlm.data.pairs import Sentences, aligned
from arlm.data.parallel_module import ParallelDataModule
from arlm.errors import UserError


class Multi30k(ParallelDataModule):
    """29,000 training, 1,014 validation and 1,000 test pairs, as published by the authors (task 1, raw).

    Reads `multi30k/{train,val,TEST}.{language}`, plain or .gz, in `data_dir`; they come from
    https://github.com/multi30k/dataset and are not downloaded.

    Args:
        test: name of the test files.
        data_dir: folder of data sets; by default $ARLM_DATA_DIR or the user cache.
        options: see ParallelDataModule: source, target, tokenizer, vocab_size, joint, batch_tokens, ...
    """

    def __init__(
        self, test: str = "test_2016_flickr", data_dir: str | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.test = test
        self.folder = data_folder(data_dir) / "multi30k"
        if not self.folder.is_dir():
            raise UserError(
                f"data.data_dir: there is no '{self.folder}'; put Multi30k's task 1 files there, "
                "from https://github.com/multi30k/dataset, or set ARLM_DATA_DIR"
            )
        for field, language in (("source", self.source), ("target", self.target)):
            self._file("train", field, language)

    def read(self, split: Split) -> Sentences:
        name = self.test if split == "test" else split
        files = (
            self._file(name, "source", self.source),
            self._file(name, "target", self.target),
        )
        return aligned(*files, f"data.{'test' if split == 'test' else 'data_dir'}")

    def _file(self, name: str, field: str, language: str) -> Path:
        for ending in ("", ".gz"):
            path = self.folder / f"{name}.{language}{ending}"
            if path.is_file():
                return path
        present = [p.name.removesuffix(".gz").rpartition(".") for p in self.folder.glob("*.*")]
        languages = sorted({tail for head, _, tail in present if head == name})
        if languages:
            mend = f"choose from {', '.join(languages)}"
            raise UserError(f"data.{field}: {language!r} is not a language of {name}.*; {mend}")
        raise UserError(
            f"data.test: '{self.folder}' has no files {name}.*; choose from "
            f"{', '.join(sorted({head for head, _, _ in present if head not in ('train', 'val')}))}"
        )
