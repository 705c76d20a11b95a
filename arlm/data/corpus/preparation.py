"""Prepare a corpus: encode its blocks in parallel, join them, and open the result."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from tqdm import tqdm

from arlm.data.corpus.blocks import BLOCK, Block, Piece, cut, encode_block, replace_file, token_type
from arlm.data.corpus.corpus import Corpus
from arlm.errors import UserError
from arlm.tokenizers import Tokenizer

FORMAT = 2
ALONE = 2**24  # bytes of text up to which one process is faster
VERIFIED = 2**26  # bytes of tokens up to which the checksum is verified whenever they are opened


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
    stats = [piece.path.stat() for piece in pieces]
    files = [
        (str(p.path.resolve()), p.begin, p.end, s.st_size, s.st_mtime_ns)
        for p, s in zip(pieces, stats, strict=True)
    ]
    key = json.dumps([FORMAT, BLOCK, tokenizer.fingerprint, separator, files])
    root = folder / hashlib.sha256(key.encode()).hexdigest()[:20]
    if not (root / "corpus.json").exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # runs that start together prepare it once
            with FileLock(folder / f"{root.name}.lock"):
                if not (root / "corpus.json").exists():
                    _prepare(pieces, tokenizer, root, separator, workers)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                shutil.rmtree(_unfinished(root), ignore_errors=True)
            raise UserError(
                f"data: cannot prepare tokens in '{folder}' ({error.strerror}); "
                "make room there, or set XDG_CACHE_HOME to another folder"
            ) from None
    return _open(root, tokenizer)


def _unfinished(root: Path) -> Path:
    return root.with_name(f"{root.name}.unfinished")


def _prepare(
    pieces: Sequence[Piece],
    tokenizer: Tokenizer,
    root: Path,
    separator: str | None,
    workers: int | None,
) -> None:
    work, started = _unfinished(root), time.monotonic()
    work.mkdir(parents=True, exist_ok=True)
    size = sum(piece.end - piece.begin for piece in pieces)
    words = tokenizer.splits_words
    blocks = (block for piece in pieces for block in cut(piece, separator, words))
    if workers is None:
        workers = (os.cpu_count() or 1) if size > ALONE else 0
    parts = []
    with tqdm(total=size, unit="B", unit_scale=True, desc="preparing", disable=None) as bar:
        for block, part in _encoded(blocks, tokenizer, separator, work, workers):
            parts.append(part)
            bar.update(block.end - block.begin)
    if not parts:
        raise UserError(f"data: '{pieces[0].path}' is empty; give text")
    _join(parts, work, tokenizer)
    work.rename(root)
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
    joined = work / "tokens.bin"
    with joined.open("wb") as target:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    firsts = np.cumsum([0, *(r["tokens"] for r in records)])
    starts = [
        np.array(r["documents"], np.int64) + first
        for r, first in zip(records, firsts, strict=False)
    ]
    np.save(work / "documents.npy", np.concatenate(starts))
    checksums = "".join(r["sha256"] for r in records)
    words = sum(r["words"] for r in records)
    counts = Counts(int(firsts[-1]), words, hashlib.sha256(checksums.encode()).hexdigest())
    with joined.open("rb") as file:
        tokens_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    record = asdict(counts) | {"tokens_sha256": tokens_sha256, "vocab_size": tokenizer.vocab_size}
    replace_file(work / "corpus.json", json.dumps(record, indent=2).encode())
    for part in parts:
        part.unlink()
        part.with_suffix(".json").unlink()


def _open(root: Path, tokenizer: Tokenizer) -> tuple[Corpus, Counts]:
    record = json.loads((root / "corpus.json").read_bytes())
    path = root / "tokens.bin"
    corpus = Corpus(
        path,
        np.load(root / "documents.npy"),
        token_type(tokenizer.vocab_size),
        record["words"],
    )
    intact = len(corpus) == record["tokens"]
    if intact and path.stat().st_size <= VERIFIED:
        intact = hashlib.sha256(path.read_bytes()).hexdigest() == record["tokens_sha256"]
    if not intact:
        raise UserError(f"data: '{path}' has changed since it was prepared; remove '{root}'")
    return corpus, Counts(record["tokens"], record["words"], record["sha256"])
