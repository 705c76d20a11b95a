"""Damaged files by the hundred: each command that reads one gives the sound file's result, or one line and exit code 2.

Sealed files (checkpoints, prepared corpora) carry checksums, so another result without a word is a fault. Of an open
file (a text, a picture, a configuration) every content means something: it may change the result.
"""

from __future__ import annotations

import hashlib
import os
import random
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tools.faults.children import Ended, run
from tools.faults.inputs import CANARY, TARGETS, Inputs, Reader, prepare_inputs
from tools.faults.outcome import newest
from tools.faults.references import Reference, judged, last_lines
from tools.faults.table import Table

LARGEST = 2 * 2**30  # bytes of memory of a command that reads one of these small files


@dataclass(frozen=True)
class Result:
    """What a command made of a file: how it ended, and its result as text."""

    ended: Ended
    text: str


def inject(
    table: Table, work: Path, noise: random.Random, times: int, wholes: Sequence[Reference]
) -> None:
    """Damage each kind of file in turn, in one of many ways, and run one of the commands that read it."""
    inputs = prepare_inputs(work, wholes)
    sound: dict[Reader, str] = {}
    for turn in range(times):
        target = TARGETS[turn % len(TARGETS)]
        reader = noise.choice(target.readers)
        if reader not in sound:
            result = read(inputs, reader)
            if result.ended.code:
                raise RuntimeError(f"{reader} fails on a sound file: {last_lines(result.ended)}")
            sound[reader] = result.text
        way = noise.choice(WAYS)

        def change(folder: Path) -> None:
            path = folder / noise.choice(sorted(folder.glob(target.pattern))).relative_to(folder)  # noqa: B023
            content, times = path.read_bytes(), path.stat()
            path.unlink()
            path.write_bytes(way(content, noise))  # noqa: B023
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # `runs` shows it

        result = read(inputs, reader, change)
        fault = f"damaged file, {reader.verb}"
        table.injected(fault, target.name)
        harm = verdict(result, sound[reader] if target.sealed else None, inputs.place)
        if harm:
            table.harm(fault, target.name, harm[0], f"{way.__name__}: {harm[1]}")


def read(inputs: Inputs, reader: Reader, change: Callable[[Path], None] | None = None) -> Result:
    """Run a command in a copy of the sound folder, changed by `change`."""
    folder = inputs.copy()
    if change is not None:
        change(folder)
    ended = run(reader.arguments, folder)
    return Result(ended, ended.out + (trained(folder) if reader.verb == "fit --resume" else ""))


def trained(folder: Path) -> str:
    """A digest of the weights of the run that was resumed last."""
    path = newest(folder / "runs" / "half", "last.ckpt")
    if path is None:
        return "no last.ckpt"
    try:
        weights = torch.load(path, weights_only=True)["state_dict"]
    except Exception as error:  # any
        return type(error).__name__
    digest = hashlib.sha256()
    for name, value in weights.items():
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def verdict(result: Result, sound: str | None, folder: Path) -> tuple | None:
    """The harm that a file did.

    Args:
        result: of a command that read it.
        sound: the result that is right; None if any is.
        folder: where the command ran.
    """
    ended = result.ended
    if (folder / CANARY).exists():
        return "executed", f"{' '.join(last_lines(ended).split())}"
    if ended.peak > LARGEST:
        return "hung", f"took {ended.peak / 2**30:.1f} GiB of memory"
    harm = judged(ended, (0, 2))
    if harm:
        return harm
    if ended.code == 0 and sound is not None and result.text != sound:
        if "cannot be read" in result.text:  # `runs` says it in its table
            return None
        return "wrong", "another result than that of the sound file, without a word"
    return None


def flip(content: bytes, noise: random.Random) -> bytes:
    """Flip 1 to 3 bits."""
    changed = bytearray(content)
    for _ in range(noise.randint(1, 3)):
        if changed:
            changed[noise.randrange(len(changed))] ^= 1 << noise.randrange(8)
    return bytes(changed)


def zero(content: bytes, noise: random.Random) -> bytes:
    """Replace a stretch by zeros."""
    begin, end = stretch(content, noise)
    return content[:begin] + bytes(end - begin) + content[end:]


def scramble(content: bytes, noise: random.Random) -> bytes:
    """Replace a stretch by random bytes."""
    begin, end = stretch(content, noise)
    return content[:begin] + noise.randbytes(end - begin) + content[end:]


def cut(content: bytes, noise: random.Random) -> bytes:
    """Cut the file at a random position, or at its begin."""
    return content[: noise.choice((0, 1, noise.randrange(len(content) + 1)))]


def repeat(content: bytes, noise: random.Random) -> bytes:
    """Write a stretch twice."""
    begin, end = stretch(content, noise)
    return content[:end] + content[begin:]


def remove(content: bytes, noise: random.Random) -> bytes:
    """Remove a stretch."""
    begin, end = stretch(content, noise)
    return content[:begin] + content[end:]


def append(content: bytes, noise: random.Random) -> bytes:
    """Append random bytes."""
    return content + noise.randbytes(noise.choice((1, 100, 5000)))


def end(content: bytes, noise: random.Random) -> bytes:
    """Change a byte of the last 300, where an archive has its list of members."""
    place = len(content) - noise.randint(1, min(300, max(len(content), 1)))
    return content[: max(place, 0)] + noise.randbytes(1) + content[max(place, 0) + 1 :]


def stretch(content: bytes, noise: random.Random) -> tuple[int, int]:
    """Two positions in a file."""
    begin = noise.randrange(len(content) + 1)
    return begin, min(len(content), begin + noise.choice((1, 4, 64, 4096)))


def deflate(content: bytes, noise: random.Random) -> bytes:
    """Compress the members of an archive, with one bit flipped before; other files are changed as by `flip`."""
    import io

    try:
        source = zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile:
        return flip(content, noise)
    target = io.BytesIO()
    changed = noise.choice(source.namelist())
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            member = source.read(name)
            archive.writestr(name, flip(member, noise) if name == changed else member)
    return target.getvalue()


WAYS = (flip, flip, zero, scramble, cut, repeat, remove, append, end, deflate)
