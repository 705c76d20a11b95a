"""TextDataModule: text in windows or lanes; FilesDataModule: the same for files, prepared once."""

from __future__ import annotations

import os
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Literal

from arlm.core import Spec
from arlm.data.corpus import Piece, TokenStream, prepare
from arlm.data.module import Split, TokenDataModule, data_folder
from arlm.data.text_files import read_text
from arlm.data.windows import TextLanes, TextReading, TextWindows
from arlm.domains import TextDomain
from arlm.domains.text import byte_tokenizer
from arlm.errors import UserError, require


class TextDataModule(TokenDataModule):
    """Text, read in one of two ways. A subclass sets `self.domain` and writes `read`.

    Args:
        length: tokens in a window or in a lane's row, T.
        reading: "windows" stand alone, for networks whose rows have a longest length; "lanes" go on from
            batch to batch, for networks that carry their state.
        stride: by how much windows advance in evaluation; half a window by default, so that a token
            is scored with at least that much context.
        lanes: side by side in evaluation.
        overlap: tokens that such a lane reads before its part of the text, for context.
        apart: no window or state reaches from one document into the next.
        batch_size: rows in a training batch.
        seed, num_workers: as for TokenDataModule.
    """

    domain: TextDomain

    def __init__(
        self,
        length: int = 256,
        reading: Literal["windows", "lanes"] = "windows",
        stride: int | None = None,
        lanes: int = 8,
        overlap: int = 256,
        apart: bool = False,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        require(length >= 2, "data.length", length, "choose at least 2")
        fits = stride is None or 1 <= stride <= length
        require(fits, "data.stride", stride, f"choose 1 to {length}")
        require(lanes >= 1, "data.lanes", lanes, "choose at least 1")
        require(overlap >= 0, "data.overlap", overlap, "choose at least 0")
        self.length, self.reading, self.stride = length, reading, stride
        self.lanes, self.overlap, self.apart = lanes, overlap, apart
        self._streams: dict[Split, TokenStream] = {}

    @property
    def spec(self) -> Spec:
        return self.domain.spec(self.length)

    @abstractmethod
    def read(self, split: Split) -> TokenStream:
        """Tokens of one split, and where its documents begin. Called once for each."""

    def stream(self, split: Split) -> TokenStream:
        """One split, read at first use."""
        if split not in self._streams:
            self._streams[split] = self.read(split)
        return self._streams[split]

    def build(self, split: Split) -> TextReading:
        given = self.stream(split), self.domain, self.length
        training = split == "train"
        if self.reading == "windows":
            stride = None if training else self.stride or max(1, self.length // 2)
            return TextWindows(*given, stride, self.seed, self.apart)
        _, world_size = self.processes
        lanes = self.batch_size * world_size if training else max(self.lanes, world_size)
        overlap = None if training else self.overlap
        return TextLanes(*given, lanes, overlap, self.seed, self.apart)

    def words(self, split: Split) -> int:
        return self.stream(split).words

    @property
    def protocol(self) -> str:
        """How much context a scored token has."""
        documents = ", documents apart" if self.apart else ""
        if self.reading == "windows":
            stride = self.stride or max(1, self.length // 2)
            return f"windows of {self.length}, stride {stride}{documents}"
        if self.lanes == 1 or self.apart:
            return f"carried state{documents}"
        return f"carried state, {self.lanes} lanes, overlap {self.overlap}"


def prepared_folder() -> Path:
    """Where prepared corpora lie: the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "arlm" / "prepared"


def find_file(path: str, data_dir: str | None, field: str = "data.path") -> Path:
    """A file in the working folder, else in the folder of data sets."""
    folders = (Path(), data_folder(data_dir))
    found = [f / path for f in folders if (f / path).is_file()]
    if not found:
        raise UserError(
            f"{field}: '{path}' is neither in '{folders[0].resolve()}' nor in "
            f"'{folders[1]}'; put it there, or set ARLM_DATA_DIR"
        )
    return found[0]


def tokenizer_file(name: str) -> TextDomain:
    """A domain from "byte" or the path of a tokenizer's JSON."""
    if name == "byte":
        return TextDomain(byte_tokenizer())
    return TextDomain(read_text(Path(name), "data.tokenizer"))


class FilesDataModule(TextDataModule):
    """Text in files, prepared once as memory-mapped tokens. A subclass writes `pieces`.

    Args:
        separator: text behind which a document ends; without one, a file is a document.
        others: as for TextDataModule.
    """

    separator: str | None = None
    name: str

    @abstractmethod
    def pieces(self, split: Split) -> list[Piece]:
        """Which bytes of which files make a split."""

    @cached_property
    def _prepared(self) -> dict[Split, tuple[TokenStream, str]]:
        splits: list[Split] = ["train", "val", "test"]
        return {split: self._prepare(split) for split in splits}

    def _prepare(self, split: Split) -> tuple[TokenStream, str]:
        given = self.pieces(split), self.domain, prepared_folder(), self.separator
        stream, counts = prepare(*given)
        return stream, counts.sha256

    def prepare_data(self) -> None:
        """Lightning calls this in one process, before any of them reads."""
        self._prepared  # noqa: B018

    def read(self, split: Split) -> TokenStream:
        return self._prepared[split][0]

    @cached_property
    def provenance(self) -> dict[str, str]:
        checksums = {f"{split}_sha256": part[1] for split, part in self._prepared.items()}
        return {"name": self.name, "protocol": self.protocol} | checksums
