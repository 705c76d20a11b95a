"""TextDataModule: text in windows or continuous streams; FilesDataModule, for text files prepared once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

from arlm.core import Spec
from arlm.data.continuous import ContinuousText
from arlm.data.corpus import Corpus, Piece, prepare
from arlm.data.folders import Split, prepared_folder
from arlm.data.module import PRECEDING, TokenDataModule
from arlm.data.order import ResumableLoader
from arlm.data.text_files import read_text
from arlm.data.windows import TextDataset, TextWindows
from arlm.domains import TextDomain
from arlm.errors import UserError, require
from arlm.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    SentenceTokenizer,
    Tokenizer,
)


class TextDataModule(TokenDataModule):
    """Text in one of two kinds of batches. A subclass sets `self.domain` and writes `read`.

    Args:
        length: tokens of a row, T: of a window, or of a stream's part of a batch.
        batching: "windows" are independent rows, for networks of limited context; "continuous" streams
            continue from batch to batch, for networks that carry their state.
        stride: how far windows advance in evaluation; half a window by default, so that a token after
            the first window is scored with at least half a window of context.
        streams: parallel streams in evaluation.
        overlap: tokens that such a stream reads before its part of the text, for context.
        separate_documents: neither windows nor carried state cross from one document into the next.
        batch_size: rows in a training batch.
        seed, num_workers: as for TokenDataModule.
    """

    domain: TextDomain

    def __init__(
        self,
        length: int = 256,
        batching: Literal["windows", "continuous"] = "windows",
        stride: int | None = None,
        streams: int = 8,
        overlap: int = 256,
        separate_documents: bool = False,
        batch_size: int = 16,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, num_workers)
        require(length >= 2, "data.length", length, "choose at least 2")
        names = ("windows", "continuous")
        require(batching in names, "data.batching", batching, f"choose {' or '.join(names)}")
        fits = stride is None or 1 <= stride <= length
        require(fits, "data.stride", stride, f"choose 1 to {length}")
        require(streams >= 1, "data.streams", streams, "choose at least 1")
        require(overlap >= 0, "data.overlap", overlap, "choose at least 0")
        self.length, self.batching, self.stride = length, batching, stride
        self.streams, self.overlap = streams, overlap
        self.separate_documents = separate_documents
        self._corpora: dict[Split, Corpus] = {}

    @property
    def spec(self) -> Spec:
        return self.domain.spec(self.length)

    @abstractmethod
    def read(self, split: Split) -> Corpus:
        """Tokens of one split, e.g. `in_memory(documents, tokenizer)`; called once for each split."""

    def corpus(self, split: Split) -> Corpus:
        """One split, read when first used."""
        if split not in self._corpora:
            self._corpora[split] = self.read(split)
        return self._corpora[split]

    def build(self, split: Split) -> TextDataset:
        given = self.corpus(split), self.domain, self.length
        training = split == "train"
        if self.batching == "windows":
            return TextWindows(
                *given,
                None if training else self.evaluation_stride,
                self.seed,
                self.separate_documents,
            )
        _, world_size = self.processes
        streams = self.batch_size * world_size if training else max(self.streams, world_size)
        overlap = None if training else self.overlap
        return ContinuousText(*given, streams, overlap, self.seed, self.separate_documents)

    def single_pass(self) -> ResumableLoader:
        corpus = self.corpus("train")
        length = min(2**16, len(corpus))
        stride = max(1, length - PRECEDING)  # in rows that overlap, a token is scored once
        given = corpus, self.domain, length, stride
        windows = TextWindows(*given, separate_documents=self.separate_documents)
        return self.in_order(windows, length)

    @property
    def evaluation_stride(self) -> int:
        """Tokens between the starts of two windows in evaluation."""
        return self.stride or max(1, self.length // 2)

    def words(self, split: Split) -> int:
        """Words in a split; 0 if tokens are characters or bytes, whose perplexity of a word says nothing."""
        return self.corpus(split).words if self.domain.tokenizer.counts_words else 0

    @property
    def protocol(self) -> str:
        documents = ", separate documents" if self.separate_documents else ""
        if self.batching == "windows":
            return f"windows of {self.length}, stride {self.evaluation_stride}{documents}"
        if self.streams == 1 or self.separate_documents:
            return f"carried state{documents}"
        return f"carried state, {self.streams} streams, overlap {self.overlap}"


def make_tokenizer(
    name: str,
    texts: Callable[[], Iterable[str]] = list,
    **trained: Callable[[Iterable[str]], Tokenizer],
) -> Tokenizer:
    """The tokenizer that `data.tokenizer` names.

    Args:
        name: "byte", one of `trained`, or the path of a tokenizer's JSON.
        texts: returns the texts to train on.
        trained: functions from texts to a tokenizer, by name.
    """
    if name == "byte":
        return ByteTokenizer()
    if name in trained:
        return trained[name](texts())
    if not Path(name).is_file():
        names = ", ".join(["byte", *trained])
        raise UserError(
            f"data.tokenizer: {name!r} is neither one of {names} nor a tokenizer's JSON file; "
            "choose one of them, or make a file with tools/train_tokenizer.py"
        )
    return BPETokenizer(read_text(Path(name), "data.tokenizer"))


def sentence_tokenizer(
    name: str, texts: Callable[[], Iterable[str]], vocab_size: int, min_count: int
) -> Tokenizer:
    """The tokenizer that `data.tokenizer` names, for data whose texts are sentences: "bpe", "word" and "character" too.

    Args:
        name: as for `make_tokenizer`.
        texts: returns the texts of the training split.
        vocab_size: number of tokens for "bpe".
        min_count: how often a word or character must occur to get a token.
    """
    return make_tokenizer(
        name,
        texts,
        bpe=partial(BPETokenizer.train, vocab_size=vocab_size),
        word=partial(SentenceTokenizer.train, min_count=min_count),
        character=partial(CharacterTokenizer.train, unknown=True, min_count=min_count),
    )


class FilesDataModule(TextDataModule):
    """Text files used as they are, prepared once as a file of tokens. A subclass writes `pieces`.

    For files that have to be parsed (JSON lines, tables), subclass `TextDataModule` and use
    `in_memory`, like `datamodules/python_docs.py`.

    The constructor's arguments are those of `TextDataModule`.
    """

    # Text after which a document ends; without one, a file is a document.
    separator: str | None = None
    name: str  # of the data set, for its provenance

    @abstractmethod
    def pieces(self, split: Split) -> list[Piece]:
        """The parts of files that make up a split."""

    @cached_property
    def _prepared(self) -> dict[Split, tuple[Corpus, str]]:
        splits: list[Split] = ["train", "val", "test"]
        return {split: self._prepare(split) for split in splits}

    def _prepare(self, split: Split) -> tuple[Corpus, str]:
        given = self.pieces(split), self.domain.tokenizer, prepared_folder(), self.separator
        corpus, counts = prepare(*given)
        return corpus, counts.sha256

    def prepare_data(self) -> None:
        """Prepare all splits; Lightning calls this in one process before the others read."""
        self._prepared  # noqa: B018

    def read(self, split: Split) -> Corpus:
        return self._prepared[split][0]

    @cached_property
    def provenance(self) -> dict[str, str]:
        checksums = {f"{split}_sha256": part[1] for split, part in self._prepared.items()}
        return {"name": self.name, "protocol": self.protocol} | checksums
