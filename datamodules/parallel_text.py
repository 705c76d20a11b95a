"""Any two aligned text files: line i of one is the translation of line i of the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from arlm.data.folders import Split, find_file
from arlm.data.pairs import Sentences, aligned
from arlm.data.parallel_module import ParallelDataModule
from arlm.errors import UserError, require


class ParallelText(ParallelDataModule):
    """Aligned files, plain or gz, with one sentence per line.

    Args:
        train: the source file and the target file; relative paths are looked up in the working folder, then
            in `data_dir`.
        val, test: the two files of these splits; None takes pairs at regular intervals out of the training
            files.
        held_out: share of the training files' pairs that a split without files takes, in (0, 0.5).
        data_dir: folder of data sets; by default $ARLM_DATA_DIR or the user cache.
        options: see ParallelDataModule: source, target, tokenizer, vocab_size, joint, batch_tokens, ...
    """

    def __init__(
        self,
        train: Sequence[str],
        val: Sequence[str] | None = None,
        test: Sequence[str] | None = None,
        held_out: float = 0.02,
        data_dir: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require(0 < held_out < 0.5, "data.held_out", held_out, "choose between 0 and 0.5")
        self.train, self.val, self.test = train, val, test
        self.held_out, self.data_dir = held_out, data_dir
        for split, files in (("train", train), ("val", val), ("test", test)):
            if files is not None and (isinstance(files, str) or len(files) != 2):
                raise UserError(
                    f"data.{split}: {files!r} is not a pair; give two files, the source's and the target's"
                )

    def read(self, split: Split) -> Sentences:
        files = {"val": self.val, "test": self.test}
        split_files = files.get(split)
        if split_files is not None:
            return self._pair(split_files, split)
        pairs = self._pair(self.train, "train")
        taken: list[Literal["val", "test"]] = [s for s in ("val", "test") if files[s] is None]
        step = round(1 / self.held_out)

        def split_of_line(line: int) -> Split:
            index = line % step
            return taken[index] if index < len(taken) else "train"

        kept = [i for i in range(len(pairs.source)) if split_of_line(i) == split]
        if not kept:
            raise UserError(
                f"data.held_out: {self.held_out} of {len(pairs.source)} pairs leave none for the {split} "
                "split; give more pairs, or files of their own"
            )
        return Sentences(*([side[i] for i in kept] for side in pairs))

    def _pair(self, files: Sequence[str], split: Split) -> Sentences:
        field = f"data.{split}"
        source, target = (find_file(name, self.data_dir, field) for name in files)
        return aligned(source, target, field)
