"""Music in several voices as tokens: a grid of sixteenth notes, with one token for each voice at each step.

    soprano   C5  .  D5  .   E5  .  .  .        tokens  C5 G4 E4 C4   . . . .   D5 . . B3   ...  end
    alto      G4  .  .   .   G4  .  .  .                \\_ step 0 _/   step 1     step 2
    tenor     E4  .  .   .   E4  .  .  .
    bass      C4  .  B3  .   C4  .  .  .        . holds the note before; rests have tokens of their own

Each voice has tokens of its own, so that the last token says whose turn it is: with tokens shared by all voices,
networks lost count in the rests before an upbeat, and the bass sang above the soprano.

References:
    | DeepBach: a Steerable Model for Bach Chorales Generation (Hadjeres, Pachet, Nielsen, 2017), the grid with holds
    | https://arxiv.org/abs/1612.01010
    | Automatic Stylistic Composition of Bach Chorales with Deep LSTM (Liang et al., 2017), voices interleaved
    | https://archives.ismir.net/ismir2017/paper/000156.pdf
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arlm.domains.base import Domain
from arlm.errors import UserError, require

STEPS = 4  # of a beat, which is a quarter note
BEATS_A_MINUTE = 80
TICKS = 480  # of a beat, in MIDI files that are written
END = 0  # the token after the last step
HOLD, REST, PITCHES = range(3)  # kinds of a voice's tokens; pitches begin at the last
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
ORGAN, PERCUSSION = 19, 9  # an instrument of General MIDI, and the channel without pitches
LONGEST = 100_000  # steps of a file
LARGEST = 2**20  # bytes of a file


class Note(NamedTuple):
    """A note on the grid."""

    start: int  # steps
    length: int  # steps
    pitch: int  # MIDI number: 60 is C4, middle C

    @property
    def end(self) -> int:
        """The first step after the note."""
        return self.start + self.length


Voices = Sequence[Sequence[Note]]  # the notes of each voice in order, the highest voice first


class MusicDomain(Domain):
    """Voices of notes <-> tokens: steps in order, in each step the voices from the highest, then the end token.

    The round trip is exact, except that silence after the last note is not written. A hold without a note before
    is silence.

    Args:
        voices: 1 to 15; a voice sounds one note at a time.
        lowest, highest: MIDI numbers of the pitches that have a token, by default C2 to C6.
    """

    unit = "note"
    view = "arlm.reports.music_view.MusicView"

    def __init__(self, voices: int = 4, lowest: int = 36, highest: int = 84) -> None:
        require(1 <= voices <= 15, "voices", voices, "choose 1 to 15")
        require(0 <= lowest <= highest <= 127, "lowest", lowest, f"choose 0 to {highest}")
        self.voices, self.lowest, self.highest = voices, lowest, highest
        self.kinds = PITCHES + highest - lowest + 1  # of each voice
        self.vocab_size = 1 + voices * self.kinds

    def encode(self, native: Voices) -> Tensor:
        """Voices -> tokens (steps * voices + 1,) int64, the end token last."""
        if len(native) != self.voices:
            raise UserError(f"music: {len(native)} voices given; give {self.voices}")
        steps = max((note.end for voice in native for note in voice), default=0)
        grid = torch.full((steps, self.voices), REST)
        for number, voice in enumerate(native):
            free = 0  # the first step after the note before
            for start, length, pitch in voice:
                where = f"music: voice {number + 1}, beat {1 + start / STEPS:g}"
                if not self.lowest <= pitch <= self.highest:
                    given = f"{name_of(self.lowest)} to {name_of(self.highest)}"
                    raise UserError(f"{where}: {name_of(pitch)} is outside {given}; transpose it")
                if start < free or length < 1:
                    raise UserError(f"{where}: two notes at once; give each a voice of its own")
                free = start + length
                grid[start:free, number] = HOLD
                grid[start, number] = PITCHES + pitch - self.lowest
        grid += 1 + self.kinds * torch.arange(self.voices)
        return torch.cat([grid.flatten(), torch.tensor([END])])

    def decode(self, tokens: Tensor) -> list[list[Note]]:
        """Tokens (T,) -> voices; what follows the first end token is ignored."""
        voices: list[list[Note]] = [[] for _ in range(self.voices)]
        pitches, begins = self.grid(tokens)
        for voice, column, firsts in zip(
            voices, pitches.T.tolist(), begins.T.tolist(), strict=True
        ):
            for step, (pitch, begin) in enumerate(zip(column, firsts, strict=True)):
                if begin:
                    voice.append(Note(step, 1, pitch))
                elif pitch >= 0:
                    voice[-1] = voice[-1]._replace(length=voice[-1].length + 1)
        return voices

    def grid(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (T,) -> the pitch of each voice at each step, -1 for silence, and where notes begin: (S, voices) each.

        A token counts for its own voice, and a step ends where the order of the voices begins again, so that a network
        that leaves one out does not exchange them; the voice that is left out holds.
        """
        tokens = tokens.cpu()
        ends = (tokens == END).nonzero().flatten()
        tokens = tokens[: int(ends[0])] if len(ends) else tokens
        voice = (tokens - 1) // self.kinds
        step = torch.cat([voice[:1] * 0, (voice[1:] <= voice[:-1]).long()]).cumsum(0)
        steps = torch.full((int(step[-1]) + 1 if len(step) else 0, self.voices), HOLD)
        steps[step, voice] = self.kind(tokens)
        # The step at which each voice's token was last something else than a hold.
        index = torch.arange(len(steps))[:, None].where(steps != HOLD, 0)
        last = index.cummax(0).values if len(steps) else index
        held = steps.gather(0, last)
        return torch.where(held >= PITCHES, held - PITCHES + self.lowest, -1), steps >= PITCHES

    def in_turn(self, tokens: Tensor) -> Tensor:
        """Rows (N, T) in which tokens of a voice whose turn it is not are replaced by holds of the one whose turn it is."""
        turn = torch.arange(tokens.shape[1], device=tokens.device) % self.voices
        right = (tokens == END) | ((tokens - 1) // self.kinds == turn)
        return tokens.where(right, 1 + self.kinds * turn + HOLD)

    def units(self, tokens: Tensor) -> Tensor:
        """1 for each token that begins a note; holds, rests and the end are no unit of their own."""
        return (self.kind(tokens) >= PITCHES).float()

    def kind(self, tokens: Tensor) -> Tensor:
        """HOLD, REST, or PITCHES and more for each token, whatever its voice; -1 for the end token."""
        return torch.where(tokens == END, -1, (tokens - 1) % self.kinds)

    def read(self, path: Path, field: str) -> Tensor:
        """Tokens (T,) of a MIDI file; errors name `field`."""
        try:
            return self.encode(read_midi(path, field))
        except UserError as error:
            raise UserError(str(error).replace("music:", f"{field}: '{path}':", 1)) from None

    def names(self, tokens: Tensor) -> list[str]:
        """The name of each token (N,): a pitch, "." for a hold, "-" for a rest, "end"."""
        special = {-1: "end", HOLD: ".", REST: "-"}
        return [
            special.get(kind) or name_of(kind - PITCHES + self.lowest)
            for kind in self.kind(tokens).tolist()
        ]


def name_of(pitch: int) -> str:
    """60 -> "C4"."""
    return f"{NAMES[pitch % 12]}{pitch // 12 - 1}"


def on_grid(notes: Iterable[tuple[float, float, int]]) -> list[Note]:
    """Notes (start, end, pitch), in steps, rounded to the grid; those that vanish there are left out."""
    rounded = [(math.floor(a + 0.5), math.floor(b + 0.5), pitch) for a, b, pitch in sorted(notes)]
    return [Note(start, end - start, pitch) for start, end, pitch in rounded if end > start]


def read_midi(path: Path, field: str) -> list[list[Note]]:
    """The voices of a MIDI file on the grid: each channel of a track that sounds, or that chooses an instrument.

    Args:
        path: of the file.
        field: names it in errors.
    """
    mido = import_mido()
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ValueError("a pipe or a device")
        with path.open("rb") as opened:
            content = opened.read(LARGEST + 1)
        if len(content) > LARGEST:  # a message takes three bytes, and 500 in memory
            raise UserError(f"{field}: '{path}' has more than {LARGEST:,} bytes; cut it")
        file = mido.MidiFile(file=io.BytesIO(content))
        beat = file.ticks_per_beat
        if beat <= 0:
            raise ValueError(beat)  # ticks of a second
    except FileNotFoundError:
        raise UserError(f"{field}: '{path}' does not exist; give a MIDI file") from None
    except UserError:
        raise
    except Exception:  # a damaged file may raise anything in the library that reads it
        raise UserError(f"{field}: '{path}' is no MIDI file with beats; give a .mid") from None
    found: dict[tuple[int, int], list[tuple[float, float, int]]] = {}
    for number, track in enumerate(file.tracks):
        time = 0  # ticks
        sounding: dict[tuple[int, int], int] = {}  # where each (channel, pitch) began
        for message in track:
            time += message.time
            if message.type not in ("note_on", "note_off", "program_change"):
                continue
            notes = found.setdefault((number, message.channel), [])
            if message.type == "program_change":
                continue
            key = message.channel, message.note
            if key in sounding:
                notes.append((sounding.pop(key) * STEPS / beat, time * STEPS / beat, message.note))
            if message.type == "note_on" and message.velocity:
                sounding[key] = time
        if time * STEPS / beat > LONGEST:
            raise UserError(f"{field}: '{path}' has more than {LONGEST // STEPS} beats; cut it")
    return [on_grid(notes) for notes in found.values()]


def write_midi(voices: Voices) -> bytes:
    """The contents of a MIDI file with a track for each voice."""
    mido = import_mido()
    file = mido.MidiFile(ticks_per_beat=TICKS)
    tempo = mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(BEATS_A_MINUTE))
    file.tracks.append(mido.MidiTrack([tempo]))
    for number, voice in enumerate(voices):
        channel = number + (number >= PERCUSSION)
        track = mido.MidiTrack([mido.Message("program_change", channel=channel, program=ORGAN)])
        now = 0
        for start, length, pitch in voice:
            for kind, step in ("note_on", start), ("note_off", start + length):
                time = (step - now) * TICKS // STEPS
                track.append(mido.Message(kind, channel=channel, note=pitch, time=time))
                now = step
        file.tracks.append(track)
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def import_mido() -> Any:
    """The library that reads and writes MIDI files, an extra."""
    try:
        import mido  # late: other domains do without
    except ModuleNotFoundError:
        raise UserError(
            "music: MIDI files need mido, of arlm's extra [music]; `pip install mido`"
        ) from None
    return mido
