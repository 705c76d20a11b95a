"""Labelled texts of your own: CSV, TSV or JSON lines."""

from __future__ import annotations

from typing import Any

from arlm.data.folders import Split, find_file, split_of
from arlm.data.labelled import Example, read_examples
from arlm.data.labelled_module import LabelledTextModule
from arlm.errors import require

PARTS = 10  # one for validation and one for the test, where there is no file for them


class LabelledText(LabelledTextModule):
    """Texts with classes or values, from files whose columns are named.

    Without files for validation and test, one example in ten is kept for each, by a hash of its texts: equal
    examples are in one split, also where the two texts of "similarity" or the choices of "choice" are in another order.

    Args:
        path: the training examples, .csv, .tsv or JSON lines, plain or .gz.
        val_path, test_path: the examples of the other splits.
        texts: the columns of the texts: one; for "entailment" premise and hypothesis; for "similarity" both; for
            "choice" the question and each of the choices, or a column of JSON lines that holds a list of them.
        label: the column of the class or value; for "choice" the number of the right one, from 0.
        data_dir: where the files are looked for after the working folder; by default $ARLM_DATA_DIR or the user cache.
        options: see LabelledTextModule: form, classes, value_range, tokenizer, length, truncate, batch_tokens, ...
    """

    def __init__(
        self,
        path: str,
        val_path: str | None = None,
        test_path: str | None = None,
        texts: list[str] | None = None,
        label: str = "label",
        data_dir: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.texts = ["text"] if texts is None else texts
        require(bool(self.texts), "data.texts", self.texts, "name the columns of the texts")
        self.label = label
        given = {"path": path, "val_path": val_path, "test_path": test_path}
        self.paths = {
            name: find_file(value, data_dir, f"data.{name}")
            for name, value in given.items()
            if value
        }

    def read(self, split: Split) -> list[Example]:
        name = "path" if split == "train" else f"{split}_path"
        own = name in self.paths
        name = name if own else "path"
        found = read_examples(self.paths[name], self.texts, self.label, f"data.{name}")
        if own and split != "train":
            return found
        apart = {s for s in ("val", "test") if f"{s}_path" not in self.paths}

        def split_of_example(example: Example) -> str:
            place = split_of(self.split_key(example.texts), PARTS)
            return place if place in apart else "train"

        return [one for one in found if split_of_example(one) == split]
