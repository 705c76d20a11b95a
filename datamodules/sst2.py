"""SST-2: sentences of film reviews, positive or negative.

References:
    | Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank (Socher et al., 2013)
    | https://aclanthology.org/D13-1170
    | Learning to Generate Reviews and Discovering Sentiment (Radford et al., 2017), the files that are read here
    | https://github.com/openai/generating-reviews-discovering-sentiment
"""

from __future__ import annotations

from typing import Any

from arlm.data.folders import Split, data_folder
from arlm.data.labelled import Example, read_examples
from arlm.data.labelled_module import LabelledTextModule
from arlm.errors import UserError

NAMES = {"0": "negative", "1": "positive"}
FILES: dict[Split, str] = {"train": "train", "val": "dev", "test": "test"}


class SST2(LabelledTextModule):
    """6,920 training, 872 validation and 1,821 test sentences: whole sentences only, without the phrases of GLUE's SST-2.

    Reads `sst2/{train,dev,test}.csv` in `data_dir`: `{train,dev,test}_binary_sent.csv` of the folder `data` of
    https://github.com/openai/generating-reviews-discovering-sentiment; they are not downloaded.

    Args:
        data_dir: folder of data sets; by default $ARLM_DATA_DIR or the user cache.
        options: see LabelledTextModule: tokenizer, vocab_size, min_count, length, truncate, batch_tokens, ...
    """

    def __init__(self, data_dir: str | None = None, **options: Any) -> None:
        super().__init__(classes=list(NAMES.values()), **options)
        self.folder = data_folder(data_dir) / "sst2"
        if not self.folder.is_dir():
            raise UserError(
                f"data.data_dir: there is no '{self.folder}'; put SST-2's train.csv, dev.csv and test.csv there, from "
                "https://github.com/openai/generating-reviews-discovering-sentiment, or set ARLM_DATA_DIR"
            )

    def read(self, split: Split) -> list[Example]:
        path = self.folder / f"{FILES[split]}.csv"
        found = read_examples(path, ["sentence"], "label", "data.data_dir")
        return [one._replace(label=NAMES.get(one.label, one.label)) for one in found]
