"""Files that would take all memory or all time of whoever reads them."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

from tools.faults.inputs import TEXT


def bomb_archive(folder: Path) -> None:
    """Compress the members of a checkpoint, with weights of 1 GiB of zeros."""
    content = io.BytesIO((folder / TEXT).read_bytes())
    with (
        zipfile.ZipFile(content) as source,
        zipfile.ZipFile(folder / "x", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            if name.endswith("data/0"):
                with target.open(name, "w", force_zip64=True) as member:
                    for _ in range(64):
                        member.write(bytes(2**24))
            else:
                target.writestr(name, source.read(name))
    (folder / "x").replace(folder / TEXT)


def bomb_gz(folder: Path) -> None:
    """5 GiB of the letter a, as members of 64 MiB."""
    (folder / "text.gz").write_bytes(gzip.compress(b"a" * 2**26) * 80)


def one_line(folder: Path) -> None:
    """100 MB without an end of line."""
    (folder / "few.txt").write_bytes(b"lorem ipsum " * (10**8 // 12))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(size: int, *extra: bytes) -> bytes:
    """A grey PNG of size x size pixels, of which the first rows are there."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0))
    rows = zlib.compress(bytes((size + 1) * min(size, 100)))
    return (
        b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def bomb_png(folder: Path) -> None:
    """A picture of 3.6 GB of pixels."""
    (folder / "images/0/00.png").write_bytes(png(60_000))


def bomb_text_chunk(folder: Path) -> None:
    """A small picture with a comment of 1 GiB."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**24)) for _ in range(64)) + packer.flush()
    (folder / "images/0/00.png").write_bytes(png(8, chunk(b"zTXt", b"Comment\0\0" + packed)))


def pipe(folder: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(folder / "images/0/pipe.png")


def folder_named_png(folder: Path) -> None:
    """A folder with the name of a picture."""
    (folder / "images/0/folder.png").mkdir()


def loop(folder: Path) -> None:
    """A link that leads to itself."""
    (folder / "images/0/loop.png").symlink_to("loop.png")


def device(folder: Path) -> None:
    """A device without end in the place of a checkpoint."""
    (folder / TEXT).unlink()
    (folder / TEXT).symlink_to("/dev/zero")
