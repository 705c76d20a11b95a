"""Your own instructions or conversations: files of JSON lines; see `arlm.data.conversations` for their form."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from arlm.data.conversation_module import ConversationDataModule
from arlm.data.conversations import conversations_in
from arlm.data.folders import Split, find_file
from arlm.domains.conversation import Conversation
from arlm.errors import UserError, require


class ConversationFiles(ConversationDataModule):
    """Files with a conversation on each line, plain or gz.

    Args:
        train: the file; a relative path is looked up in the working folder, then in `data_dir`.
        val, test: the files of these splits; None takes conversations out of the training file,
            by a hash of each: equal conversations are in one split.
        held_out: share of the training file that a split without a file takes, in (0, 0.5).
        data_dir: folder of data sets; by default $ARLM_DATA_DIR or the user cache.
        options: see ConversationDataModule: tokenizer, templates, length, batch_tokens, bleu, ...
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        held_out: float = 0.05,
        data_dir: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require(0 < held_out < 0.5, "data.held_out", held_out, "choose between 0 and 0.5")
        self.files: dict[Split, str | None] = {"train": train, "val": val, "test": test}
        self.held_out, self.data_dir = held_out, data_dir

    def read(self, split: Split) -> list[Conversation]:
        name = self.files[split]
        if name is not None and split != "train":
            return self._file(name, split)
        every = self._file(str(self.files["train"]), "train")
        kept = [one for one in every if self._split_of(one) == split]
        if not kept:
            raise UserError(
                f"data.held_out: {self.held_out} of {len(every)} conversations leave none for the {split} split; "
                "give more, or files of their own"
            )
        return kept

    def _split_of(self, conversation: Conversation) -> Split:
        """The split of a conversation of the training file."""
        held: list[Split] = ["val", "test"]
        taken = [split for split in held if self.files[split] is None]
        content = json.dumps([list(message) for message in conversation])
        drawn = int(hashlib.sha256(content.encode()).hexdigest(), 16) / 2**256
        index = int(drawn / self.held_out)
        return taken[index] if index < len(taken) else "train"

    def _file(self, name: str, split: Split) -> list[Conversation]:
        field = f"data.{split}"
        return list(conversations_in(str(find_file(name, self.data_dir, field)), field))
