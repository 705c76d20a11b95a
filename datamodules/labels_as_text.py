"""Texts with classes as pairs of texts: the answer is a word for the class, as T5 writes classification.

    this is a good film   ->   positive

References:
    | Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer (Raffel et al., 2020), T5
    | https://arxiv.org/abs/1910.10683
"""

from __future__ import annotations

from typing import Any

from arlm.data.folders import Split, find_file
from arlm.data.labelled import read_examples
from arlm.data.pairs import Sentences
from arlm.data.parallel_module import ParallelDataModule
from arlm.errors import UserError, require


class LabelsAsText(ParallelDataModule):
    """Files .csv or .tsv with a header, or JSON lines, plain or gz, one for each split.

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
        once = len(set(labels)) == len(labels)
        require(once, "data.labels", labels, "give each label once")
        self.files: dict[Split, str] = {"train": train, "val": val, "test": test}
        self.answers = dict(zip(labels, answers, strict=True))
        self.columns, self.data_dir = (text_column, label_column), data_dir

    def read(self, split: Split) -> Sentences:
        field = f"data.{split}"
        path = find_file(self.files[split], self.data_dir, field)
        sentences = Sentences([], [])
        for text, label, where in read_examples(path, self.columns[:1], self.columns[1], field):
            if label not in self.answers:
                known = ", ".join(map(repr, self.answers))
                raise UserError(
                    f"{field}: {where} has the label {label!r}; data.labels has {known}"
                )
            sentences.source.append(" ".join(" ".join(text).split()))  # type: ignore[attr-defined]
            sentences.target.append(self.answers[label])
        return sentences
