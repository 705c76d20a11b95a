"""MusicView: pieces as MIDI files, as sound, and as piano rolls; a given voice or beginning is completed."""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from arlm.core import Autoregressor
from arlm.domains.music import BEATS_A_MINUTE, END, STEPS, MusicDomain, Voices, name_of, write_midi
from arlm.inference.items import Item, ItemScores
from arlm.reports.files import write_bytes
from arlm.reports.keep import side_and_share
from arlm.reports.page import fragment
from arlm.reports.shown import Shown, data_url
from arlm.reports.tokens import FULL_BITS
from arlm.reports.view import View

# Of voices in turn: the first colours of the style sheet's charts.
COLOURS = "#0b62b8", "#c2570c", "#15803d", "#a21caf"
VOICES = "soprano", "alto", "tenor", "bass"
SURPRISE = LinearSegmentedColormap.from_list("surprise", ["#d8dde4", "#d63e1c"])
BEAT_INCHES, PITCH_INCHES = 0.16, 0.055
GAP = 0.15  # steps between notes, so that repeated ones are seen
RATE = 16_000  # samples a second
STEP_SAMPLES = RATE * 60 // (BEATS_A_MINUTE * STEPS)
OVERTONES = (1.0, 0.5, 0.25, 0.12)  # amplitudes of a sound like an organ's
FADE = 400  # samples in which a note swells, and fades


class MusicView(View[MusicDomain]):
    """Pieces to hear and to see."""

    verbs = frozenset({"sample", "score", "attention"})
    purpose = "composes music"
    refusals: ClassVar = {
        "prompt": "the checkpoint composes music; omit it, or give --complete FILE.mid --keep left:0.25"
    }
    default_out, suffixes = "samples.mid", (".mid",)

    def show(self, tokens: Tensor) -> Shown:
        """Each row as a MIDI file and as sound, and all of them in one picture."""
        pieces = [self.domain.decode(row) for row in tokens]
        files: dict[str, bytes] = {}
        for index, piece in enumerate(pieces):
            name = f"-{index}" if len(pieces) > 1 else ""
            files |= {f"{name}.mid": write_midi(piece), f"{name}.wav": sound(piece)}
        ends = tokens == END
        drawn = int((ends.cumsum(1) - ends.long() == 0).sum())  # up to each row's end
        pictures = {"piano rolls": piano_rolls(list(map(bars, pieces)), self.domain.voices)}
        return Shown(drawn, pictures=pictures, files=files)

    def forced(self, options: dict[str, Any]) -> Tensor | None:
        """The tokens (1, T) of the piece to complete, -1 where they are to be drawn."""
        if not options["complete"]:
            return None
        side, share = side_and_share(options["keep"])
        tokens = self.domain.read(Path(options["complete"]), "--complete")
        steps = tokens[:-1].view(-1, self.domain.voices)
        across = side in ("left", "right")
        count = len(steps) if across else self.domain.voices
        place = (torch.arange(count) + 0.5) / count
        kept = place < share if side in ("left", "top") else place > 1 - share
        given = steps.where(kept[:, None] if across else kept, -1).flatten()
        # The piece keeps its length unless its end is to be composed.
        return (given if side == "left" else torch.cat([given, tokens[-1:]]))[None]

    def write(
        self,
        drawn: dict[str, Tensor],
        out: Path,
        columns: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> list[Path]:
        """Files of each sample; voices that are given stay as they are, whatever is drawn between their notes."""
        if options and options["complete"] and not options["keep"].startswith("left"):
            drawn = {name: self.domain.in_turn(tokens) for name, tokens in drawn.items()}
        return super().write(drawn, out, columns, options)

    def read(self, path: str) -> Tensor:
        return self.domain.read(Path(path), "FILE")

    def to_attend(self, text: str, net: Autoregressor) -> Item:
        return Item(text, self.domain.read(Path(text), "TEXT"))

    @property
    def columns(self) -> int:
        return STEPS * self.domain.voices

    def pieces(self, tokens: Tensor) -> list[str]:
        """Names, a line for each beat."""
        names = self.domain.names(tokens)
        return [
            f"{name}\n" if (i + 1) % self.columns == 0 else f"{name} "
            for i, name in enumerate(names)
        ]

    def surprise(self, scored: ItemScores, most: int | None = None) -> str:
        """A piano roll coloured by surprise, and the tokens with their alternatives."""
        picture = {"red notes are surprising": data_url(self._surprise([scored]))}
        shown = fragment("shown.html", texts=[], pictures=picture, sounds=[])
        return shown + super().surprise(scored, most)

    def write_surprise(self, scored: Sequence[ItemScores], out: Path) -> Path:
        return write_bytes(self._surprise(scored), out)

    def _surprise(self, scored: Sequence[ItemScores]) -> bytes:
        """Piano rolls as PNG; the colour of a note is the bits that it costs, its holds included."""
        rolls = []
        for one in scored:
            whole = len(one.nats) // self.domain.voices * self.domain.voices
            bits = one.nats[:whole].view(-1, self.domain.voices) / math.log(2)
            rolls.append(
                [
                    Bar(
                        *note,
                        SURPRISE(float(bits[note.start : note.end, number].sum()) / FULL_BITS),
                    )
                    for number, voice in enumerate(self.domain.decode(one.tokens))
                    for note in voice
                ]
            )
        return piano_rolls(rolls)


class Bar(NamedTuple):
    """A note of a piano roll."""

    start: int  # steps
    length: int  # steps
    pitch: int
    colour: Any


def bars(piece: Voices) -> list[Bar]:
    """A bar for each note, in the colour of its voice."""
    return [
        Bar(*note, COLOURS[number % len(COLOURS)])
        for number, voice in enumerate(piece)
        for note in voice
    ]


def piano_rolls(rolls: Sequence[Sequence[Bar]], voices: int = 0) -> bytes:
    """Piano rolls below one another, as PNG: beats to the right, pitches upwards.

    Args:
        rolls: the notes of each.
        voices: number of voices, for a legend of their colours; 0 for the scale of surprise.
    """
    ends = [max((bar.start + bar.length for bar in roll), default=STEPS) for roll in rolls]
    pitches = [bar.pitch for roll in rolls for bar in roll] or [60]
    low, high = min(pitches) - 1, max(pitches) + 1
    width = max(3.0, max(ends) / STEPS * BEAT_INCHES)
    height = (high - low) * PITCH_INCHES
    size = width + 0.6, len(rolls) * (height + 0.35) + 0.3
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(rolls), 1, squeeze=False, sharex=True)[:, 0]
    octaves = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    for panel, roll, end in zip(panels, rolls, ends, strict=True):
        for bar in roll:
            box = (bar.start / STEPS, bar.pitch - 0.45), (bar.length - GAP) / STEPS, 0.9
            panel.add_patch(Rectangle(*box, color=bar.colour, linewidth=0))
        panel.axvline(end / STEPS, color="0.4", linewidth=0.8)
        panel.set(xlim=(0, max(ends) / STEPS), ylim=(low, high))
        panel.set_yticks(octaves, [name_of(pitch) for pitch in octaves])
        panel.set_xticks(range(0, max(ends) // STEPS + 1, 4))
        panel.grid(color="0.9", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("beats")
    if voices:
        names = VOICES if voices == len(VOICES) else [f"voice {i + 1}" for i in range(voices)]
        marks = [Patch(color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(names)]
        figure.legend(
            handles=marks,
            loc="outside upper left",
            ncols=voices,
            handlelength=1.2,
            frameon=False,
            fontsize=8,
        )
    else:
        scale = ScalarMappable(Normalize(0, FULL_BITS), SURPRISE)
        figure.colorbar(scale, ax=list(panels), label="bits", shrink=0.8, aspect=30, pad=0.01)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90)
    return file.getvalue()


def sound(piece: Voices) -> bytes:
    """A piece as the contents of a .wav file, 16 bits, one channel; no sum of the voices is clipped."""
    steps = max((note.end for voice in piece for note in voice), default=STEPS)
    mixed = np.zeros(steps * STEP_SAMPLES)
    loudest = 0.9 / max(1, len(piece)) / sum(OVERTONES)
    for voice in piece:
        for start, length, pitch in voice:
            time = np.arange(length * STEP_SAMPLES)
            turns = 440 * 2 ** ((pitch - 69) / 12) * time / RATE
            tone = sum(a * np.sin(2 * np.pi * k * turns) for k, a in enumerate(OVERTONES, start=1))
            envelope = np.minimum(1, np.minimum(time, time[::-1]) / FADE)
            first = start * STEP_SAMPLES
            mixed[first : first + len(time)] += loudest * envelope * tone
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((mixed * 32767).round().astype("<i2").tobytes())
    return file.getvalue()
