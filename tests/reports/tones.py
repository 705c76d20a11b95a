"""A domain of a user's own: melodies of eight tones, written as .wav. One file has domain, view and data."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from arlm.core import Spec
from arlm.data.dataset import FixedRows
from arlm.data.module import TokenDataModule
from arlm.domains import Domain
from arlm.errors import UserError
from arlm.reports.view import Shown, View

NAMES = "CDEFGABc"
HERTZ = [261.6, 293.7, 329.6, 349.2, 392.0, 440.0, 493.9, 523.3]
RATE, SAMPLES = 8000, 1000  # samples a second, and in a tone


class Melodies(Domain):
    """Strings of tone names <-> tokens."""

    unit = "tone"
    view = "tones.MelodyView"
    vocab_size = len(NAMES)

    def encode(self, native: str) -> Tensor:
        if unknown := set(native) - set(NAMES):
            raise UserError(f"melody: {min(unknown)!r} is no tone; write {NAMES}")
        return torch.tensor([NAMES.index(name) for name in native])

    def decode(self, tokens: Tensor) -> str:
        return "".join(NAMES[token] for token in tokens.tolist())

    def units(self, tokens: Tensor) -> Tensor:
        return torch.ones(tokens.shape, device=tokens.device)


class MelodyView(View[Melodies]):
    """Melodies are heard."""

    verbs = frozenset({"sample", "score"})
    purpose = "plays melodies"
    default_out = "melodies.wav"

    def show(self, tokens: Tensor) -> Shown:
        return Shown(tokens.numel(), files={".wav": sound(tokens)})

    def read(self, path: str) -> Tensor:
        return self.domain.encode(Path(path).read_text().strip())

    def pieces(self, tokens: Tensor) -> list[str]:
        return [NAMES[token] for token in tokens.tolist()]


class Scales(TokenDataModule):
    """Pieces of scales, up or down from any tone."""

    def __init__(self, length: int = 12, batch_size: int = 16, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.length, self.domain = length, Melodies()

    @property
    def spec(self) -> Spec:
        return Spec(self.domain.vocab_size, (self.length,), unit=self.domain.unit)

    def build(self, split: str) -> FixedRows:
        noise = torch.Generator().manual_seed(len(split))
        first = torch.randint(8, (64, 1), generator=noise)
        way = torch.randint(2, (64, 1), generator=noise) * 2 - 1
        return FixedRows((first + way * torch.arange(self.length)) % 8, self.domain)


def sound(tokens: Tensor) -> bytes:
    """Rows of tones (N, T), one after the other, as a .wav file."""
    time = np.arange(SAMPLES) / RATE
    tones = [np.sin(2 * np.pi * HERTZ[token] * time) for token in tokens.flatten().tolist()]
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((np.concatenate(tones) * 12000).astype("<i2").tobytes())
    return file.getvalue()
