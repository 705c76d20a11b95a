"""Any UTF-8 text, in one file or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arlm.data.corpus import Piece, texts
from arlm.data.folders import Split, find_file
from arlm.data.text_module import FilesDataModule, make_tokenizer
from arlm.domains import TextDomain
from arlm.errors import UserError, require
from arlm.tokenizers import CharacterTokenizer


class TextFile(FilesDataModule):
    """Files joined in order, then split: the first part is for training, the end is held out.

    The held-out part is halved into validation and test, or serves as both. The tokens are prepared once in
    the user cache and read from there, so the text may be larger than memory.

    Args:
        path: file or files; relative paths are looked up in the working folder, then in `data_dir`.
        tokenizer: "byte"; "character" (the alphabet of the files); or the path of a
            tokenizer's JSON from tools/train_tokenizer.py.
        held_out: fraction of the bytes that is held out, in (0, 1).
        one_held_out: validation and test are the same text, as in nanoGPT's split of Tiny Shakespeare.
        separator: text after which a document ends; without one, a file is a document.
        data_dir: folder of data sets; by default $ARLM_DATA_DIR or the user cache.
        options: see TextDataModule: length, batching, stride, streams, overlap, separate_documents, ...
    """

    def __init__(
        self,
        path: str | Sequence[str],
        tokenizer: str = "byte",
        held_out: float = 0.1,
        one_held_out: bool = False,
        separator: str | None = None,
        data_dir: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require(0 < held_out < 1, "data.held_out", held_out, "choose between 0 and 1")
        self.held_out, self.one_held_out, self.separator = held_out, one_held_out, separator
        names = [path] if isinstance(path, str) else path
        self.name = ", ".join(names)
        self.files = [find_file(name, data_dir) for name in names]
        self.size = sum(file.stat().st_size for file in self.files)
        if self.size < 2:
            raise UserError(f"data.path: {path!r} has {self.size} bytes; give a text of at least 2")
        alphabet = {"character": CharacterTokenizer.train}
        self.domain = TextDomain(
            make_tokenizer(tokenizer, lambda: texts(self.files, False), **alphabet)
        )

    def pieces(self, split: Split) -> list[Piece]:
        cut = self._whole_character(int(self.size * (1 - self.held_out)))
        middle = self._whole_character(cut + (self.size - cut) // 2)
        begin, end = {
            "train": (0, cut),
            "val": (cut, self.size if self.one_held_out else middle),
            "test": (cut if self.one_held_out else middle, self.size),
        }[split]
        return list(self._between(begin, end))

    def _between(self, begin: int, end: int) -> list[Piece]:
        """Bytes `begin` to `end` of the joined files."""
        pieces, first = [], 0
        for file in self.files:
            size = file.stat().st_size
            inside = Piece(file, max(begin - first, 0), min(end - first, size))
            if inside.begin < inside.end:
                pieces.append(inside)
            first += size
        return pieces

    def _whole_character(self, position: int) -> int:
        """The first byte from `position` on that starts a UTF-8 character."""
        for piece in self._between(position, min(position + 4, self.size)):
            with piece.path.open("rb") as file:
                file.seek(piece.begin)
                for byte in file.read(piece.end - piece.begin):
                    if byte & 0xC0 != 0x80:
                        return position
                    position += 1
        return position
