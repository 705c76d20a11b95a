"""Pairs of a source and a text: read from aligned files, and padded into batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import Batch
from arlm.data.dataset import Rows, TokenDataset
from arlm.data.text_files import read_text
from arlm.domains import PairDomain
from arlm.errors import UserError


class Sentences(NamedTuple):
    """Both sides of a split, pair by pair."""

    source: Sequence[Any]  # what `PairDomain.encode_source` takes: lines, or pictures
    target: list[str]


class Pairs(TokenDataset):
    """Pairs of different lengths; a batch is padded to its longest.

    Args:
        sources, targets: tokens (S,) and (T,) of each pair, the target's end token included.
        domain: of both sides.
    """

    def __init__(
        self, sources: Sequence[Tensor], targets: Sequence[Tensor], domain: PairDomain
    ) -> None:
        self.sources, self.targets, self.domain = sources, targets, domain
        self.lengths = torch.tensor(
            [(len(s), len(t)) for s, t in zip(sources, targets, strict=True)]
        )
        self._first = self.lengths[:, 1].cumsum(0) - self.lengths[:, 1]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, rows: Rows) -> Batch:
        chosen = rows.chosen.tolist()
        end = self.domain.eos_id
        tokens = pad_sequence([self.targets[i] for i in chosen], True, end)
        scored = torch.arange(tokens.shape[1]) < self.lengths[rows.chosen, 1:]
        context = self.domain.contexts([self.sources[i] for i in chosen])
        return Batch(tokens, scored, self.domain.units(tokens), context)

    def positions(self, rows: Rows) -> Tensor:
        longest = int(self.lengths[rows.chosen, 1].max())
        return self._first[rows.chosen, None] + torch.arange(longest)


def aligned(source: Path, target: Path, field: str) -> Sentences:
    """The lines of both files; refuses files of different lengths and empty lines."""
    sides = [lines_of(path, field) for path in (source, target)]
    counts = [len(side) for side in sides]
    if counts[0] != counts[1]:
        raise UserError(
            f"{field}: '{source}' has {counts[0]} lines and '{target}' {counts[1]}; "
            "give files whose lines are translations of each other, one by one"
        )
    for path, side in zip((source, target), sides, strict=True):
        empty = next((i for i, line in enumerate(side) if not line), None)
        if empty is not None:
            raise UserError(
                f"{field}: line {empty + 1} of '{path}' is empty; leave it out of both files"
            )
    return Sentences(*sides)


def lines_of(path: Path, field: str) -> list[str]:
    """Lines of a UTF-8 file, plain or gz, stripped of surrounding white space."""
    text = read_text(path, field)
    if not text:
        raise UserError(f"{field}: '{path}' is empty; give one sentence per line")
    return [line.strip() for line in text.removesuffix("\n").split("\n")]
