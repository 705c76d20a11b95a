"""Any UTF-8 text file or files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from arlm.data import Split, TextDataModule, data_folder, read_text
from arlm.domains import TextDomain
from arlm.domains.text import byte_tokenizer, character_tokenizer
from arlm.errors import UserError, require


class TextFile(TextDataModule):
    """Files read one after the other, then cut: the first part for training, the end held out.

    The held-out part is halved into validation and test, or serves as both.

    Args:
        path: file or files; relative ones are looked for in the working folder, then in `data_dir`.
        tokenizer: "byte"; "character" (the alphabet is that of the files); or the path of a
            tokenizer's JSON from tools/train_tokenizer.py.
        held_out: fraction of the characters that is not trained on, in (0, 1).
        one_held_out: validation and test are the same text, as in nanoGPT's split of Tiny Shakespeare.
        data_dir: folder of data sets; by default ARLM_DATA_DIR or the user's cache.
        length, stride, batch_size, seed, num_workers: as for TextDataModule.
    """

    def __init__(
        self,
        path: str | Sequence[str],
        tokenizer: str = "byte",
        held_out: float = 0.1,
        one_held_out: bool = False,
        data_dir: str | None = None,
        length: int = 256,
        stride: int | None = None,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(length, stride, batch_size, seed, num_workers)
        require(0 < held_out < 1, "data.held_out", held_out, "choose between 0 and 1")
        self.path = path if isinstance(path, str) else list(path)
        self.tokenizer, self.held_out, self.one_held_out = tokenizer, held_out, one_held_out
        self.data_dir = data_dir
        if tokenizer == "byte":
            self.domain = TextDomain(byte_tokenizer())
        elif tokenizer == "character":
            self.domain = TextDomain(character_tokenizer(self.whole))
        else:
            self.domain = TextDomain(read_text(Path(tokenizer), "data.tokenizer"))

    @cached_property
    def whole(self) -> str:
        """The files, one after the other."""
        paths = [self.path] if isinstance(self.path, str) else self.path
        folders = (Path(), data_folder(self.data_dir))
        texts = []
        for path in paths:
            found = [f / path for f in folders if (f / path).exists()]
            if not found:
                raise UserError(
                    f"data.path: '{path}' is neither in '{folders[0].resolve()}' nor in "
                    f"'{folders[1]}'; put it there, or set ARLM_DATA_DIR"
                )
            texts.append(read_text(found[0], "data.path"))
        text = "".join(texts)
        if len(text) < 2:
            raise UserError(
                f"data.path: {self.path!r} has {len(text)} characters; give a text of at least 2"
            )
        return text

    def text(self, split: Split) -> str:
        cut = int(len(self.whole) * (1 - self.held_out))
        held = self.whole[cut:]
        if split == "train":
            return self.whole[:cut]
        if self.one_held_out:
            return held
        middle = len(held) // 2
        return held[:middle] if split == "val" else held[middle:]

    @cached_property
    def provenance(self) -> dict[str, str]:
        digest = hashlib.sha256(self.whole.encode()).hexdigest()
        return {"name": "text_file", "path": str(self.path), "sha256": digest}
