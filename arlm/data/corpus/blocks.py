"""Text files cut into blocks where a word ends, each encoded into a file of its own."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from arlm.data.corpus.corpus import count_words
from arlm.errors import UserError
from arlm.storage import replace_file
from arlm.tokenizers import Tokenizer

BLOCK = 2**22  # bytes of text that are encoded at a time
NEAR = 2**14  # bytes after the target in which a word usually ends
LONGEST = 2**20  # bytes after the target in which a word has to end
# After a non-space character and before a space or newline; no word tokenizer joins text across it.
WORD_END = re.compile(rb"[!-~\x80-\xff](?<!\xc2\xa0)(?<!\xe3\x80\x80)(?<!\xe2\x80.)(?=[ \n])", re.S)


class Piece(NamedTuple):
    """Bytes `begin` to `end` of a file; they start a document."""

    path: Path
    begin: int
    end: int


class Block(NamedTuple):
    """Bytes of a piece that are encoded together."""

    path: Path
    begin: int
    end: int
    document: bool  # whether it starts a document
    inside: bool  # whether it starts inside a word
    sha256: str = ""  # of its bytes


def cut(piece: Piece, separator: str | None = None, whole_words: bool = True) -> Iterator[Block]:
    """Blocks of about BLOCK bytes that end after a separator, else where a word ends.

    Without `whole_words`, a block may end inside a word that is longer than LONGEST.
    """
    mark = (separator or "").encode()
    begin, document, inside = piece.begin, True, False
    with piece.path.open("rb") as file:
        while begin < piece.end:
            end, next_document, next_inside = piece.end, False, False
            target = begin + BLOCK
            if target < piece.end:
                window = _read(file, target, min(LONGEST if mark else NEAR, piece.end - target))
                ends = WORD_END.search(window)
                if not ends:
                    window = _read(file, target, min(LONGEST, piece.end - target))
                    ends = WORD_END.search(window)
                found = window.find(mark) if mark else -1
                if found >= 0:
                    end, next_document = target + found + len(mark), True
                elif ends:
                    end = target + ends.end()
                elif not whole_words:
                    start = next(i for i, b in enumerate(window[:4]) if b & 0xC0 != 0x80)
                    end, next_inside = target + start, True
                else:
                    raise UserError(
                        f"data: '{piece.path}' has a word of over {LONGEST} bytes at byte {target}; "
                        "break it up, or choose the byte or character tokenizer"
                    )
            yield Block(piece.path, begin, end, document, inside)
            begin, document, inside = end, next_document, next_inside


def _read(file: BinaryIO, begin: int, size: int) -> bytes:
    file.seek(begin)
    return file.read(size)


def decoded(block: Block) -> tuple[bytes, str]:
    """A block's bytes, and the same decoded as UTF-8."""
    with block.path.open("rb") as file:
        file.seek(block.begin)
        raw = file.read(block.end - block.begin)
    if (zero := raw.find(b"\0")) >= 0:
        raise UserError(
            f"data: '{block.path}' is binary (a zero at byte {block.begin + zero}); give text"
        )
    try:
        return raw, raw.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"data: '{block.path}' is not UTF-8 text (byte {block.begin + error.start}); "
            "convert it to UTF-8"
        ) from None


def texts(files: Iterable[Path], whole_words: bool = True) -> Iterator[str]:
    """Yield the text of `files` block by block."""
    for path in files:
        for block in cut(Piece(path, 0, path.stat().st_size), None, whole_words):
            yield decoded(block)[1]


def hashed(blocks: Iterable[Block]) -> Iterator[Block]:
    """Each block with the hash of its bytes."""
    for block in blocks:
        with block.path.open("rb") as file:
            raw = _read(file, block.begin, block.end - block.begin)
        yield block._replace(sha256=hashlib.sha256(raw).hexdigest())


def encode_block(block: Block, tokenizer: Tokenizer, separator: str | None, target: Path) -> None:
    """Write a hashed block's tokens to `target`, then its counts to a JSON file beside it."""
    record = target.with_suffix(".json")
    if _is_encoded(block, record, target):
        return
    raw, text = decoded(block)
    if hashlib.sha256(raw).hexdigest() != block.sha256:
        raise UserError(f"data: '{block.path}' was changed while it was read; run again")
    documents = re.split(f"(?<={re.escape(separator)})", text) if separator else [text]
    parts = [tokenizer.encode(part, strict=False).numpy() for part in documents if part]
    content = np.concatenate(parts).astype(token_type(tokenizer.vocab_size)).tobytes()
    replace_file(target, content)
    starts = np.cumsum([0, *map(len, parts[:-1])]).tolist()
    counts = {
        "tokens": sum(map(len, parts)),
        "words": count_words(text) - block.inside,
        "documents": starts if block.document else starts[1:],
        "sha256": block.sha256,
        "crc32": zlib.crc32(content),
    }
    replace_file(record, json.dumps(counts).encode())


def _is_encoded(block: Block, record: Path, target: Path) -> bool:
    """Whether an earlier preparation encoded the block, and its files are sound."""
    try:
        counts = json.loads(record.read_bytes())
        content = target.read_bytes()
        return counts["sha256"] == block.sha256 and counts["crc32"] == zlib.crc32(content)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def token_type(vocab_size: int) -> str:
    """The smallest integer type that fits the vocabulary."""
    return "uint8" if vocab_size <= 2**8 else "uint16" if vocab_size <= 2**16 else "uint32"
