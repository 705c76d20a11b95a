"""Chorales by J. S. Bach in four voices, read from the corpus that the package music21 contains.

The files are read once, into the user's cache. Bach set many tunes more than once, and some settings occur twice, a
few of them note by note; a split by chance would put one into training and the other into the test. So chorales
with the same tune are in the same split.

The encodings are by Margaret Greentree and others; music21's `corpus/license.txt` says what they may be used for.

References:
    | music21: A Toolkit for Computer-Aided Musicology and Symbolic Music Data (Cuthbert, Ariza, 2010)
    | https://archives.ismir.net/ismir2010/paper/000108.pdf
    | Modeling Temporal Dependencies in High-Dimensional Sequences (Boulanger-Lewandowski et al., 2012), first use of
    | the chorales as a benchmark, with another split and another representation
    | https://arxiv.org/abs/1206.6392
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from arlm.core import Batch, Spec
from arlm.data.dataset import Rows, TokenDataset, plain_batch
from arlm.data.folders import Split, prepared_folder, split_of
from arlm.data.module import TokenDataModule
from arlm.data.order import BatchOrder, LengthBuckets
from arlm.domains.music import END, STEPS, MusicDomain, Note, on_grid
from arlm.errors import UserError, require
from arlm.storage import replace_file

FORMAT = 2  # of the file in the cache
PARTS = 10  # one for validation, one for the test
VOICES = ["Soprano", "Alto", "Tenor", "Bass"]
LENGTH = 3200  # tokens of a row: 50 bars of 4/4; the longest chorale has 3137


class Chorales(TokenDataModule):
    """365 chorales, split by tune: one tune in ten for validation, one in ten for the test.

    A row is a whole chorale on a grid of sixteenth notes, its upbeat filled up with rests to a whole bar.

    Args:
        transpose: training has each chorale in every key in which its voices stay within the ranges of the
            training split's voices, at most six semitones from where it is written.
        batch_tokens: largest number of tokens in a batch, padding included; a longer chorale is a batch of its own.
        seed, num_workers: as for TokenDataModule.
    """

    domain: MusicDomain

    def __init__(
        self,
        transpose: bool = True,
        batch_tokens: int = 4096,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(1, seed, num_workers)
        require(batch_tokens >= 1, "data.batch_tokens", batch_tokens, "choose at least 1")
        self.transpose, self.batch_tokens = transpose, batch_tokens
        self.domain = MusicDomain()

    @property
    def spec(self) -> Spec:
        size = self.domain.vocab_size
        return Spec(size, (LENGTH,), pad_id=END, eos_id=END, unit=self.domain.unit)

    def prepare_data(self) -> None:
        self.chorales  # noqa: B018  (Lightning calls this in one process before the others read)

    @cached_property
    def chorales(self) -> dict[str, Tensor]:
        """Tokens (T,) of every chorale, by the name of its file."""
        return prepared(self.domain)

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The split of every chorale: by a hash of the first name among those with its tune."""
        melodies = [self.domain.grid(tokens)[0][::STEPS, 0] for tokens in self.chorales.values()]
        names = list(self.chorales)
        return {
            name: split_of(names[first], PARTS)
            for name, first in zip(names, same_tune(melodies), strict=True)
        }

    def build(self, split: Split) -> TokenDataset:
        pieces = [self.chorales[name] for name in self.chorales if self.splits[name] == split]
        if split == "train" and self.transpose:
            pieces = transposed(pieces, self.domain)
        return WholePieces(pieces, self.spec, self.domain)

    def order(self, split: Split) -> BatchOrder:
        dataset: Any = self.dataset(split)
        lengths = dataset.lengths[:, None].expand(
            -1, 2
        )  # of source and target, where there are both
        given = lengths, self.batch_tokens, split == "train", self.seed
        return LengthBuckets(*given, *self.processes)

    @property
    def protocol(self) -> str:
        return "whole chorales"

    @cached_property
    def provenance(self) -> dict[str, str]:
        tokens = torch.cat(list(self.chorales.values())).to(torch.uint8)
        return {
            "name": "chorales",
            "music21": metadata.version("music21"),
            "sha256": hashlib.sha256(tokens.numpy().tobytes()).hexdigest(),
            "protocol": f"{self.protocol}, split by tune",
        }


class WholePieces(TokenDataset):
    """Pieces of different lengths; a batch is padded with end tokens to its longest.

    Args:
        pieces: tokens (T,) of each, with the end token.
        spec, domain: of the data.
    """

    def __init__(self, pieces: Sequence[Tensor], spec: Spec, domain: MusicDomain) -> None:
        self.pieces, self.spec, self.domain = pieces, spec, domain
        self.lengths = torch.tensor([len(piece) for piece in pieces])
        self._firsts = self.lengths.cumsum(0) - self.lengths

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, rows: Rows) -> Batch:
        tokens = pad_sequence([self.pieces[i] for i in rows.chosen.tolist()], True, END)
        return plain_batch(tokens, self.spec, self.domain)

    def positions(self, rows: Rows) -> Tensor:
        longest = int(self.lengths[rows.chosen].max())
        return self._firsts[rows.chosen, None] + torch.arange(longest)


def transposed(pieces: Sequence[Tensor], domain: MusicDomain) -> list[Tensor]:
    """Each piece in every key that keeps the voices within the ranges of all pieces, itself first."""
    grids = [domain.grid(piece)[0] for piece in pieces]
    lows = [grid.where(grid >= 0, domain.highest).amin(0) for grid in grids]
    highs = [grid.amax(0) for grid in grids]
    lowest, highest = torch.stack(lows).amin(0), torch.stack(highs).amax(0)
    found = []
    for piece, low, high in zip(pieces, lows, highs, strict=True):
        for shift in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6):
            if (low + shift >= lowest).all() and (high + shift <= highest).all():
                found.append(piece + shift * domain.units(piece).long())
    return found


def same_tune(melodies: Sequence[Tensor]) -> list[int]:
    """For each melody (beats,) of pitches, the first one with the same tune.

    Two melodies have the same tune if they agree at more than half of the beats of the longer one, in whatever key,
    and if each has the same tune as a third one.
    """
    longest = max(map(len, melodies))
    grid = torch.full((len(melodies), longest), -1000)
    for row, melody in zip(grid, melodies, strict=True):
        row[: len(melody)] = melody
    sizes = torch.tensor([len(melody) for melody in melodies])
    first = torch.arange(len(melodies))
    for index in range(1, len(melodies)):
        both = (grid[:index] >= 0) & (grid[index] >= 0)
        difference = (grid[:index] - grid[index]).where(both, 1000)
        agree = torch.stack([(difference == key).sum(1) for key in range(-24, 25)]).amax(0)
        alike = agree > 0.5 * sizes[:index].maximum(sizes[index])
        groups = torch.cat([first[:index][alike], first[index, None]]).unique()
        first[torch.isin(first, groups)] = groups[0]
    return first.tolist()


def prepared(domain: MusicDomain) -> dict[str, Tensor]:
    """Tokens of every chorale by the name of its file, from the cache, or read now and written there."""
    try:
        version = metadata.version("music21")
    except metadata.PackageNotFoundError:
        raise UserError(
            "data: the chorales are in music21, of arlm's extra [music]; `pip install music21`"
        ) from None
    folder = prepared_folder()
    path = folder / f"chorales-{FORMAT}-{version}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # runs that start together read the files once
            if not path.exists():
                files = four_voices()
                print(f"reading {len(files)} chorales, once, about a minute", file=sys.stderr)
                bar = tqdm(files, "reading", unit=" chorales", disable=None)
                found = {file.stem: domain.encode(read(file)).tolist() for file in bar}
                replace_file(path, json.dumps(found).encode())
            content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"data: cannot prepare the chorales in '{folder}' ({error.strerror}); "
            "make room there, or set XDG_CACHE_HOME to another folder"
        ) from None
    return {name: torch.tensor(tokens) for name, tokens in content.items()}


def four_voices() -> list[Path]:
    """music21's files of works by Bach with four parts, named after the voices, in order."""
    from music21 import corpus  # late, as it takes half a second

    files = [path for path in corpus.getComposer("bach") if path.suffix in (".mxl", ".xml")]
    return sorted(path for path in files if part_names(path) == VOICES)


def part_names(path: Path) -> list[str]:
    """The names of the parts of a MusicXML file, read without the notes."""
    content = path.read_bytes()
    if is_zipfile(path):
        with ZipFile(path) as archive:
            content = b"".join(archive.read(n) for n in archive.namelist() if "META" not in n)
    names = re.findall(rb"<part-name[^>]*>([^<]*)</part-name>", content)
    return [name.decode(errors="replace").strip() for name in names]


def read(path: Path) -> list[list[Note]]:
    """The voices of a MusicXML file on the grid; an upbeat is moved to the end of a whole bar."""
    from music21 import converter

    score: Any = converter.parse(path, forceSource=True, storePickle=False)
    upbeat = score.parts[0].getElementsByClass("Measure").first().paddingLeft
    voices = []
    for part in score.parts:
        notes: list[tuple[float, float, int]] = []
        for note in part.flatten().notes:
            start = STEPS * float(upbeat + note.offset)
            end = start + STEPS * float(note.quarterLength)
            pitch = note.pitch.midi
            tied = note.tie is not None and note.tie.type != "start"  # continues the note before
            if tied and notes and notes[-1][1:] == (start, pitch):
                start = notes.pop()[0]
            notes.append((start, end, pitch))
        voices.append(on_grid(notes))
    return voices
