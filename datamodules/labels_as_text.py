"""Texts with classes as pairs of texts: the answer is a word for the class, as T5 writes classification.

    this is a good film   ->   positive

References:
    | Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (Raffel et al., 2020), T5
    | https://arxiv.org/abs/1910.10683
"""

from __future__ import annotations

import csv
import io
from typing import Any

from arlm.data.folders import Split, find_file
from arlm.data.pairs import Sentences
from arlm.data.parallel_module import ParallelDataModule
from arlm.data.text_files import read_text
from arlm.errors import UserError


class LabelsAsText(ParallelDataModule):
    """CSV files with a header, plain or gz, one for each split.

    Args:
        train, val, test: the files; relative paths are looked up in the working folder, then in `data_dir`.
        labels: the classes, as the files write them.
        answers: a word or a text for each class.
        text_column, label_column: names of the columns.
        data_dir: folder of data sets; by default $ARLM_DATA_DIR or the user cache.
        options: see ParallelDataModule: tokenizer, vocab_size, length, batch_tokens, ...
    """

    def __init__(
        self,
        train: str,
        val: str,
        test: str,
        labels: list[str],
        answers: list[str],
        text_column: str = "sentence",
        label_column: str = "label",
        data_dir: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if len(answers) != len(labels) or not all(answer.strip() for answer in answers):
            raise UserError(
                f"data.answers: {answers} for the labels {labels}; give a text for each label"
            )
        self.files: dict[Split, str] = {"train": train, "val": val, "test": test}
        self.answers = dict(zip(labels, answers, strict=True))
        self.columns, self.data_dir = (text_column, label_column), data_dir

    def read(self, split: Split) -> Sentences:
        field = f"data.{split}"
        path = find_file(self.files[split], self.data_dir, field)
        rows = csv.DictReader(io.StringIO(read_text(path, field)))
        missing = [name for name in self.columns if name not in (rows.fieldnames or ())]
        if missing:
            raise UserError(
                f"{field}: '{path}' has no column {missing[0]!r}, but {', '.join(rows.fieldnames or ())}; "
                "name its columns by data.text_column and data.label_column"
            )
        sentences = Sentences([], [])
        for row in rows:
            text, label = (row[name] or "" for name in self.columns)
            where = f"{field}: line {rows.line_num} of '{path}'"
            if not text.strip():
                raise UserError(f"{where} has no text; leave it out")
            if label not in self.answers:
                known = ", ".join(map(repr, self.answers))
                raise UserError(f"{where} has the label {label!r}; data.labels has {known}")
            sentences.source.append(" ".join(text.split()))  # type: ignore[attr-defined]
            sentences.target.append(self.answers[label])
        return sentences
