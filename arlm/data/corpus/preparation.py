"""Prepare a corpus: encode its blocks in parallel, join them, and open the result."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from tqdm import tqdm

from arlm.data.corpus.blocks import BLOCK, Block, Piece, cut, encode_block, hashed, token_type
from arlm.data.corpus.corpus import Corpus
from arlm.data.corpus.origin import remembered
from arlm.data.corpus.token_file import CHUNK, TokenFile
from arlm.errors import UserError
from arlm.storage import remove_abandoned, replace_file, replacing, sync_folder
from arlm.tokenizers import Tokenizer

FORMAT = 3
ALONE = 2**24  # bytes of text up to which one process is faster
INDEX = {"documents": "documents.int64", "crc32": "tokens.crc32"}  # files beside the tokens


@dataclass(frozen=True)
class Counts:
    """Size and checksum of a prepared text."""

    tokens: int
    words: int  # as `count_words` counts them
    sha256: str  # of the blocks' checksums


def prepare(
    pieces: Sequence[Piece],
    tokenizer: Tokenizer,
    folder: Path,
    separator: str | None = None,
    workers: int | None = None,
) -> tuple[Corpus, Counts]:
    """Tokens of `pieces` as one corpus: encoded now, or opened if they were prepared before.

    Args:
        pieces: the parts of the files.
        tokenizer: encodes them.
        folder: holds all prepared corpora.
        separator: text after which a new document starts; files always start one.
        workers: processes; by default one for each core, and none for short texts.
    """
    if not pieces:
        raise UserError("data: a split has no text; give more, or hold out another part")
    files = [piece.path for piece in pieces]
    spans = [(piece.begin, piece.end) for piece in pieces]
    key = json.dumps([FORMAT, BLOCK, tokenizer.fingerprint, separator, spans])
    blocks: list[Block] = []

    def content() -> str:
        cuts = (cut(piece, separator, tokenizer.splits_words) for piece in pieces)
        blocks[:] = hashed(chain.from_iterable(cuts))
        parts = [(block.sha256, block.document, block.inside) for block in blocks]
        return hashlib.sha256(json.dumps([key, parts]).encode()).hexdigest()[:20]

    root = folder
    try:
        root = folder / remembered(files, key, folder, content)
        if not (root / "corpus.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            # runs that start together prepare it once
            with FileLock(folder / f"{root.name}.lock"):
                if not (root / "corpus.json").exists():
                    root = folder / content() if not blocks else root
                    with leaving_space(_unfinished(root)):
                        _prepare(blocks, pieces, tokenizer, root, separator, workers)
    except OSError as error:
        raise UserError(
            f"data: cannot prepare tokens in '{folder}' ({error.strerror}); "
            "make room there, or set XDG_CACHE_HOME to another folder"
        ) from None
    except BrokenProcessPool:
        raise UserError(
            "data: a process that prepares tokens was killed, perhaps for lack of memory; free some, and run "
            "again: the preparation continues where it stopped"
        ) from None
    return _open(root, tokenizer)


@contextmanager
def leaving_space(work: Path) -> Iterator[None]:
    """Remove a folder of work if the disk is full, so that others can go on."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            shutil.rmtree(work, ignore_errors=True)
        raise


def _unfinished(root: Path) -> Path:
    return root.with_name(f"{root.name}.unfinished")


def _prepare(
    blocks: Sequence[Block],
    pieces: Sequence[Piece],
    tokenizer: Tokenizer,
    root: Path,
    separator: str | None,
    workers: int | None,
) -> None:
    work, started = _unfinished(root), time.monotonic()
    work.mkdir(parents=True, exist_ok=True)
    size = sum(piece.end - piece.begin for piece in pieces)
    if workers is None:
        workers = (os.cpu_count() or 1) if size > ALONE else 0
    parts = []
    with tqdm(total=size, unit="B", unit_scale=True, desc="preparing", disable=None) as bar:
        for block, part in _encoded(iter(blocks), tokenizer, separator, work, workers):
            parts.append(part)
            bar.update(block.end - block.begin)
    if not parts:
        raise UserError(f"data: '{pieces[0].path}' is empty; give text")
    _join(parts, work, tokenizer)
    remove_abandoned(work)
    shutil.rmtree(root, ignore_errors=True)  # a folder without corpus.json is incomplete
    work.rename(root)
    sync_folder(root.parent)
    seconds = time.monotonic() - started
    if seconds > 5:
        print(f"prepared {size} bytes in {seconds:.0f} s: '{root}'", file=sys.stderr)


def _encoded(
    blocks: Iterator[Block], tokenizer: Tokenizer, separator: str | None, work: Path, workers: int
) -> Iterator[tuple[Block, Path]]:
    """Each block and the file of its tokens, in order."""
    named = ((block, work / f"{index:06}.tokens") for index, block in enumerate(blocks))
    if not workers:
        for block, part in named:
            encode_block(block, tokenizer, separator, part)
            yield block, part
        return
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_become_worker, initargs=(tokenizer,)
    )
    waiting: list = []
    try:
        for block, part in named:
            waiting.append((block, part, pool.submit(_work, block, separator, part)))
            if len(waiting) > 4 * workers:
                block, part, done = waiting.pop(0)
                done.result()
                yield block, part
        for block, part, done in waiting:
            done.result()
            yield block, part
    finally:
        pool.shutdown(cancel_futures=True)


_tokenizer: Tokenizer  # of a worker process


def _become_worker(tokenizer: Tokenizer) -> None:
    global _tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    _tokenizer = tokenizer


def _work(block: Block, separator: str | None, part: Path) -> None:
    encode_block(block, _tokenizer, separator, part)


def _join(parts: Sequence[Path], work: Path, tokenizer: Tokenizer) -> None:
    """Write one file of tokens and the index; corpus.json is written last and marks them as complete."""
    records = [json.loads(part.with_suffix(".json").read_bytes()) for part in parts]
    crcs, rest = [], b""
    with replacing(work / "tokens.bin") as target:
        for part in parts:
            content = part.read_bytes()
            target.write(content)
            rest += content
            whole = len(rest) // CHUNK * CHUNK
            crcs += [zlib.crc32(rest[i : i + CHUNK]) for i in range(0, whole, CHUNK)]
            rest = rest[whole:]
    crcs += [zlib.crc32(rest)] if rest else []
    firsts = np.cumsum([0, *(r["tokens"] for r in records)])
    starts = [
        np.array(r["documents"], np.int64) + first
        for r, first in zip(records, firsts, strict=False)
    ]
    checksums = "".join(r["sha256"] for r in records)
    words = sum(r["words"] for r in records)
    counts = Counts(int(firsts[-1]), words, hashlib.sha256(checksums.encode()).hexdigest())
    record = asdict(counts) | {"vocab_size": tokenizer.vocab_size}
    for name, array in {
        "documents": np.concatenate(starts),
        "crc32": np.array(crcs, "<u4"),
    }.items():
        content = array.astype(array.dtype.newbyteorder("<")).tobytes()
        replace_file(work / INDEX[name], content)
        record[name] = hashlib.sha256(content).hexdigest()
    record["checksum"] = _checksum(record)
    replace_file(work / "corpus.json", json.dumps(record, indent=2).encode())
    for part in parts:
        part.unlink()
        part.with_suffix(".json").unlink()


def _checksum(record: dict[str, Any]) -> str:
    content = {name: value for name, value in record.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _open(root: Path, tokenizer: Tokenizer) -> tuple[Corpus, Counts]:
    """Open a prepared corpus; its index is verified here, and its tokens where they are read."""
    try:
        record = json.loads((root / "corpus.json").read_bytes())
        if record["checksum"] != _checksum(record) or record["vocab_size"] != tokenizer.vocab_size:
            raise ValueError("corpus.json")
        documents = _index(root, record, "documents", "<i8")
        crcs = _index(root, record, "crc32", "<u4")
        counts = Counts(record["tokens"], record["words"], record["sha256"])
        dtype = np.dtype(token_type(tokenizer.vocab_size))
        plain = all(type(n) is int and n >= 0 for n in (counts.tokens, counts.words))
        if not plain or len(crcs) != -(-counts.tokens * dtype.itemsize // CHUNK):
            raise ValueError("corpus.json")
        if documents[0] != 0 or (np.diff(documents) < 0).any() or documents[-1] > counts.tokens:
            raise ValueError(INDEX["documents"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise UserError(
            f"data: the index of '{root}' has changed since it was prepared, or cannot be read ({error}); "
            f"remove '{root}' and run again"
        ) from None
    tokens = TokenFile(root / "tokens.bin", dtype.str, counts.tokens, crcs, tokenizer.vocab_size)
    return Corpus(tokens, documents, counts.words), counts


def _index(root: Path, record: dict[str, Any], name: str, dtype: str) -> np.ndarray:
    """A file of integers beside the tokens, after a comparison with its SHA-256."""
    content = (root / INDEX[name]).read_bytes()
    if hashlib.sha256(content).hexdigest() != record[name]:
        raise ValueError(INDEX[name])
    return np.frombuffer(content, dtype)
