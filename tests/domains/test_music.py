"""Music: tokens and MIDI files round-trip, bad files are refused in one line, and pieces are heard, seen, completed."""

from __future__ import annotations

import io
import math
import sys
import wave
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from arlm.domains.music import END, HOLD, REST, MusicDomain, Note, on_grid, write_midi
from arlm.errors import UserError
from arlm.inference.items import Item, ItemScores
from arlm.reports.music_view import OVERTONES, RATE, STEP_SAMPLES, sound
from arlm.reports.view import view_of

mido = pytest.importorskip("mido", reason="needs mido, of the extra [music]")

DOMAIN = MusicDomain()
KINDS = 2 + 84 - 36 + 1  # of a voice's tokens
C4, END_OF = 2 + 60 - 36, torch.tensor([END])
VOICE = 1 + KINDS * torch.arange(4)  # the first token of each
PIECE = [
    [Note(0, 2, 72), Note(2, 2, 72)],
    [Note(1, 3, 67)],
    [],
    [Note(0, 1, 48), Note(3, 1, 36)],
]


@st.composite
def pieces(draw: st.DrawFn) -> list[list[Note]]:
    """One to six voices, each with notes and rests in turn."""
    voices = []
    for _ in range(draw(st.integers(1, 6))):
        step, notes = 0, []
        for rest, length, pitch in draw(
            st.lists(st.tuples(st.integers(0, 5), st.integers(1, 20), st.integers(36, 84)))
        ):
            notes.append(Note(step + rest, length, pitch))
            step = notes[-1].end
        voices.append(notes)
    return voices


@settings(deadline=None)
@given(pieces())
def test_notes_tokens_and_midi_files_round_trip(piece: list[list[Note]]) -> None:
    domain = MusicDomain(len(piece))
    tokens = domain.encode(piece)
    assert tokens.dtype == torch.long
    assert domain.decode(tokens) == piece
    assert int(domain.units(tokens).sum()) == sum(map(len, piece))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.mid"
        path.write_bytes(write_midi(piece))
        assert torch.equal(domain.read(path, "FILE"), tokens)


def test_the_grid_is_step_by_step_and_the_highest_voice_comes_first() -> None:
    names = DOMAIN.names(DOMAIN.encode(PIECE))
    rows = [names[i : i + 4] for i in range(0, 16, 4)]
    assert rows[0] == ["C5", "-", "-", "C3"]
    assert rows[1] == [".", "G4", "-", "-"]
    assert rows[2] == ["C5", ".", "-", "-"]
    assert rows[3] == [".", ".", "-", "C2"]
    assert names[16:] == ["end"]
    assert DOMAIN.vocab_size == 1 + 4 * KINDS
    first = torch.tensor([C4 + 12, REST, REST, C4 - 12])
    assert torch.equal(DOMAIN.encode(PIECE)[:4], VOICE + first)


def test_a_hold_without_a_note_is_silence_and_a_row_ends_at_its_end() -> None:
    kinds = torch.tensor([[HOLD, REST, C4, HOLD], [C4, HOLD, HOLD, HOLD]])
    steps = (kinds + VOICE).flatten()
    expected = [[Note(1, 1, 60)], [], [Note(0, 2, 60)], []]
    assert DOMAIN.decode(torch.cat([steps, END_OF, steps])) == expected
    # a step that is cut: the voices that are left out hold
    cut = [[Note(1, 1, 60), Note(2, 1, 60)], [], [Note(0, 3, 60)], []]
    assert DOMAIN.decode(torch.cat([steps, steps[4:6]])) == cut
    # a step that begins with the bass: a step of its own, and the voices stay what they are
    slipped = [[Note(2, 1, 60)], [], [Note(1, 2, 60)], []]
    assert DOMAIN.decode(steps.view(2, 4).roll(1, 1).flatten()) == slipped
    assert DOMAIN.decode(END_OF) == [[], [], [], []]
    assert DOMAIN.encode([[], [], [], []]).tolist() == [END]


def test_notes_are_rounded_to_the_grid() -> None:
    played = [(3.9, 6.2, 60), (0.1, 2.4, 62), (6.2, 6.3, 64)]  # the last one vanishes
    assert on_grid(played) == [Note(0, 2, 62), Note(4, 2, 60)]


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (PIECE[:3], "music: 3 voices given; give 4"),
        ([[Note(4, 1, 90)], [], [], []], "voice 1, beat 2: F#6 is outside C2 to C6; transpose"),
        ([[], [Note(0, 4, 60), Note(2, 2, 64)], [], []], "voice 2, beat 1.5: two notes at once"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(piece: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DOMAIN.encode(piece)


def midi(*tracks: list[tuple]) -> bytes:
    """A MIDI file of 96 ticks a beat from (kind, channel, note, velocity, ticks since the message before)."""
    file = mido.MidiFile(ticks_per_beat=96)
    for track in tracks:
        names = "type", "channel", "note", "velocity", "time"
        messages = (mido.Message(**dict(zip(names, each, strict=True))) for each in track)
        file.tracks.append(mido.MidiTrack(messages))
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def test_a_file_of_another_program_is_read(tmp_path: Path) -> None:
    """Two channels in one track, another resolution, notes that are not quite in time, ends as velocity 0."""
    first = [("note_on", 0, 60, 90, 2), ("note_on", 5, 48, 90, 1), ("note_on", 0, 60, 0, 44)]
    rest = [("note_on", 0, 64, 90, 0), ("note_off", 5, 48, 0, 50), ("note_off", 0, 64, 0, 1)]
    other = [("note_on", 0, 50, 1, 96), ("note_on", 0, 50, 1, 24), ("note_on", 0, 50, 0, 24)]
    other += [("note_on", 0, 50, 1, 24), ("note_off", 0, 50, 0, 24)]
    (tmp_path / "a.mid").write_bytes(midi(first + rest, [], other))
    domain = MusicDomain(voices=3)
    expected = [
        [Note(0, 2, 60), Note(2, 2, 64)],
        [Note(0, 4, 48)],
        [Note(step, 1, 50) for step in (4, 5, 7)],
    ]
    assert domain.decode(domain.read(tmp_path / "a.mid", "FILE")) == expected


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        ([[("note_on", 0, 60, 9, 0), ("note_off", 0, 60, 0, 24)]], "1 voices given; give 4"),
        (
            [[("note_on", 0, 60, 9, 0), ("note_on", 0, 64, 9, 48), *([("note_off", 0, 60, 0, 48)])]
            + [("note_off", 0, 64, 0, 9)]] + [[("note_on", 0, 60, 9, 0)]] * 3,
            "voice 1, beat 1.5: two notes at once; give each a voice of its own",
        ),
        ([[("note_on", 0, 60, 9, 2**27)]], "has more than 25000 beats; cut it"),
    ],
    ids=["voices", "chord", "long"],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused(tracks: list, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.mid").write_bytes(midi(*tracks))
    with pytest.raises(UserError, match=rf"^FILE: '.*a\.mid':? {message}"):
        DOMAIN.read(tmp_path / "a.mid", "FILE")


def test_files_that_are_no_music_are_refused(tmp_path: Path) -> None:
    whole = write_midi(PIECE)
    for name, content in {"text": b"no music", "cut": whole[:40], "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"FILE: '.*{name}' is no MIDI file with beats; give"):
            DOMAIN.read(tmp_path / name, "FILE")
    with pytest.raises(UserError, match=r"FILE: '.*none' does not exist"):
        DOMAIN.read(tmp_path / "none", "FILE")
    with pytest.raises(UserError, match=r"lowest: 90 .* choose 0 to 84"):
        MusicDomain(lowest=90)
    with pytest.raises(UserError, match="voices: 0"):
        MusicDomain(voices=0)


def test_without_mido_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mido", None)
    with pytest.raises(
        UserError, match=r"need mido, of arlm's extra \[music\]; `pip install mido`"
    ):
        write_midi(PIECE)


def samples(content: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_the_sound_has_the_pitch_and_the_length_of_the_notes_and_is_not_clipped() -> None:
    heard = samples(sound([[Note(4, 8, 69)], [], []]))
    assert len(heard) == 12 * STEP_SAMPLES
    assert not heard[: 4 * STEP_SAMPLES].any()
    spectrum = np.abs(np.fft.rfft(heard[4 * STEP_SAMPLES :]))
    assert spectrum.argmax() * RATE / (8 * STEP_SAMPLES) == pytest.approx(440, abs=1)
    four = samples(sound([[Note(0, 4, 60)]] * 4)).astype(int)  # the loudest that four can be
    turns = np.linspace(0, 1, 10_001)
    tone = sum(a * np.sin(2 * np.pi * k * turns) for k, a in enumerate(OVERTONES, start=1))
    peak = tone.max() / sum(OVERTONES)  # the overtones are never all at their highest
    assert np.abs(four).max() / 32767 == pytest.approx(0.9 * peak, rel=0.01)
    assert len(samples(sound([[], []]))) > 0


def test_what_is_shown_of_samples(tmp_path: Path) -> None:
    view = view_of(DOMAIN)
    tokens = DOMAIN.encode(PIECE)
    rows = torch.stack([torch.cat([tokens, END_OF]), torch.cat([END_OF, tokens])])
    shown = view.show(rows)
    assert shown.tokens == len(tokens) + 1  # up to each row's end
    names = [path.name for path in shown.save(tmp_path / "s")]
    assert names == ["s.png", "s-0.mid", "s-0.wav", "s-1.mid", "s-1.wav"]
    assert torch.equal(view.read(str(tmp_path / "s-0.mid")), tokens)
    page = shown.html()
    assert page.count("<audio") == 2
    assert 'alt="piano rolls"' in page
    assert list(view.show(rows[:1]).files) == [".mid", ".wav"]
    wider = view.show(DOMAIN.encode([[Note(0, 200, 60)], [], [], []])[None])
    sizes = [Image.open(io.BytesIO(s.pictures["piano rolls"])).width for s in (shown, wider)]
    assert sizes[1] > 2 * sizes[0]


def test_a_voice_or_the_beginning_of_a_piece_is_given(tmp_path: Path) -> None:
    view, tokens = view_of(DOMAIN), DOMAIN.encode(PIECE)
    (tmp_path / "a.mid").write_bytes(write_midi(PIECE))
    steps = tokens[:-1].view(4, 4)

    def given(keep: str) -> torch.Tensor:
        forced = view.forced({"complete": str(tmp_path / "a.mid"), "keep": keep})
        assert forced is not None
        return forced[0]

    left = given("left:0.5").view(4, 4)
    assert torch.equal(left[:2], steps[:2])
    assert (left[2:] == -1).all()
    top = given("top:0.25")
    assert top[-1] == END
    assert torch.equal(top[:-1].view(4, 4)[:, 0], steps[:, 0])
    assert (top[:-1].view(4, 4)[:, 1:] == -1).all()
    assert torch.equal(given("bottom:0.5")[:-1].view(4, 4)[:, 2:], steps[:, 2:])
    assert view.forced({"complete": None, "keep": "top:0.5"}) is None
    with pytest.raises(UserError, match="--keep: 'up' is not understood"):
        given("up")


def test_a_given_voice_stays_whatever_is_drawn(tmp_path: Path) -> None:
    view, tokens = view_of(DOMAIN), DOMAIN.encode(PIECE)
    slipped = tokens.clone()
    slipped[5] = tokens[7]  # a token of the bass where the alto's turn is
    options = {"complete": "a.mid", "keep": "top:0.25"}
    view.write({"": slipped[None]}, tmp_path / "b.mid", options=options)
    assert DOMAIN.decode(view.read(str(tmp_path / "b.mid")))[0] == PIECE[0]
    assert torch.equal(DOMAIN.in_turn(tokens[None])[0], tokens)


def test_surprise_colours_whole_notes(tmp_path: Path) -> None:
    view, tokens = view_of(DOMAIN), DOMAIN.encode([[Note(0, 4, 60)], [], [], []])

    def hot(*costly: int) -> int:
        """Pixels in the full colour of surprise, where some tokens cost eight bits."""
        nats = torch.zeros(len(tokens)).double()
        nats[list(costly)] = 8 * math.log(2)
        none = torch.empty(len(tokens), 0)
        scored = ItemScores(Item("x", tokens), nats, torch.ones(len(tokens)), none.long(), none)
        path = view.write_surprise([scored], tmp_path / "s.png")
        pixels = np.array(Image.open(path).convert("RGB"))
        assert '<pre class="tokens">' in view.surprise(scored)
        return int((pixels == (0xD6, 0x3E, 0x1C)).all(-1).sum())

    assert hot() == hot(1) == hot(16) == 0  # a rest and the end are no note
    assert hot(0) == hot(4) > 50  # the beginning of the note, or a hold
