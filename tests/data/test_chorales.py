"""Bach's chorales: whole pieces, in every key, split by tune; and every verb on a run of them."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
import torch
from conftest import run_arlm

from arlm.data.dataset import Rows
from arlm.domains.music import END, STEPS, write_midi
from arlm.errors import UserError
from datamodules import chorales
from datamodules.chorales import Chorales, same_tune

SPLITS = "train", "val", "test"


def test_rows_are_whole_chorales_and_each_token_is_scored_once(few_chorales: None) -> None:
    data = Chorales()
    names = list(data.chorales)
    assert len(names) == 31
    assert sum(len(data.dataset(split)) for split in ("val", "test")) < 12
    for split in SPLITS:
        dataset = data.dataset(split)
        seen = []
        for rows in data.order(split):
            batch = dataset[rows]
            assert batch.tokens.numel() <= 4096 or len(batch.tokens) == 1
            assert (batch.tokens[batch.scored] == END).sum() == len(batch.tokens)
            assert (batch.tokens[~batch.scored] == END).all()
            assert (batch.units[~batch.scored] == 0).all()
            seen.append(dataset.positions(rows)[batch.scored])
        seen_once = torch.cat(seen).unique()
        assert len(seen_once) == len(torch.cat(seen))
        if split != "train":
            pieces = [data.chorales[name] for name in names if data.splits[name] == split]
            whole = torch.cat(pieces)
            assert len(seen_once) == len(whole) > 0
            rows = Rows(0, torch.arange(len(pieces)))
            batch = dataset[rows]
            found = torch.empty_like(whole)
            found[dataset.positions(rows)[batch.scored]] = batch.tokens[batch.scored]
            assert torch.equal(found, whole)


def test_training_has_every_key_that_the_voices_can_sing(few_chorales: None) -> None:
    data, plain = Chorales(), Chorales(transpose=False)
    every, written = data.dataset("train").pieces, plain.dataset("train").pieces
    grids = [data.domain.grid(piece)[0] for piece in written]
    low = torch.stack([g.where(g >= 0, 999).amin(0) for g in grids]).amin(0)
    high = torch.stack([g.amax(0) for g in grids]).amax(0)
    found = iter(every)
    for piece, grid in zip(written, grids, strict=True):
        shifts = set()
        for shift in range(-6, 7):
            moved = torch.where(grid >= 0, grid + shift, -1)
            inside = ((moved < 0) | ((moved >= low) & (moved <= high))).all()
            if inside and shift != -6:  # six up and six down are the same key
                shifts.add(shift)
        keys = [next(found) for _ in shifts]
        assert torch.equal(keys[0], piece)
        moved_by = [(data.domain.grid(key)[0] - grid)[grid >= 0].unique().tolist() for key in keys]
        assert {shift for (shift,) in moved_by} == shifts
    assert next(found, None) is None
    assert len(every) > 3 * len(written)


def test_a_tune_is_known_in_another_key_and_with_other_notes_here_and_there() -> None:
    tune = torch.tensor([60, 62, 64, 65, 67, 67, 65, 64, 62, 60])
    varied = tune + 5
    varied[[1, 4, 7, 8]] += 2
    other = torch.tensor([60, 60, 67, 67, 69, 69, 67, 65, 65, 64])
    further = varied.clone()
    further[[0, 2, 3, 9]] += 1  # six notes as in `varied`, and two as in `tune`
    assert same_tune([tune, other, varied]) == [0, 1, 0]
    assert same_tune([tune, other, further]) == [0, 1, 2]
    assert same_tune([tune, further, other, varied]) == [0, 0, 2, 0]
    assert same_tune([tune, tune.repeat(3)]) == [0, 1]  # less than half of the longer one
    rest = torch.full((10,), -1)
    assert same_tune([rest, rest]) == [0, 1]


def test_chorales_are_read_as_they_are_written() -> None:
    pytest.importorskip("music21", reason="needs music21, of the extra [music]")
    (path,) = [path for path in chorales.four_voices() if path.stem == "bwv66.6"]
    soprano, *_, bass = chorales.read(path)
    # an upbeat of a beat after three beats of rest, two eighths; then quarters, in F sharp minor
    assert [note[:2] for note in soprano[:4]] == [(12, 2), (14, 2), (16, 4), (20, 4)]
    assert [note.pitch for note in soprano[:7]] == [73, 71, 69, 71, 73, 76, 73]
    assert bass[-1].pitch % 12 == 6
    assert max(note.end for note in soprano) == 4 * STEPS * 10 - 4  # nine bars and the upbeat's


def test_the_files_are_read_once(few_chorales: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Chorales().chorales
    monkeypatch.setattr(chorales, "read", None)
    again = Chorales()
    assert all(torch.equal(first[name], again.chorales[name]) for name in first)
    assert again.provenance["music21"] == metadata.version("music21")


def test_what_cannot_be_prepared_is_refused(
    few_chorales: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"data\.batch_tokens: 0"):
        Chorales(batch_tokens=0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot prepare the chorales in .* XDG_CACHE_HOME"):
        Chorales().prepare_data()

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(chorales.metadata, "version", missing)
    with pytest.raises(
        UserError, match=r"are in music21, .* extra \[music\]; `pip install music21`"
    ):
        Chorales().prepare_data()


@pytest.mark.slow
def test_all_chorales() -> None:
    """The numbers that the docs give."""
    pytest.importorskip("music21", reason="needs music21, of the extra [music]")
    data = Chorales()
    sizes = [sum(found == split for found in data.splits.values()) for split in SPLITS]
    assert sizes == [270, 43, 52]
    assert max(map(len, data.chorales.values())) == 3137 <= data.spec.length
    assert (
        len(set(same_tune([data.domain.grid(t)[0][::STEPS, 0] for t in data.chorales.values()])))
        == 252
    )


def test_every_verb_works_on_music(few_chorales: None, tmp_path: Path) -> None:
    tiny = ["--model.net.width", 16, "--model.net.depth", 1, "--samples.n", 1]
    steps = ["--trainer.max_steps", 3, "--trainer.val_check_interval", 3]
    fit = run_arlm("fit", "--config", "chorales_lstm", *tiny, *steps, folder=tmp_path)
    assert fit.code == 0, fit.err
    assert "val/bits_per_note" in fit.err
    (run,) = (tmp_path / "runs").iterdir()
    assert list(run.rglob("samples/*.wav"))

    given = next(iter(Chorales().chorales.values()))
    bach = tmp_path / "bach.mid"
    bach.write_bytes(write_midi(Chorales().domain.decode(given)))
    completed = run_arlm(
        "sample", run, "--complete", bach, "--keep", "top:0.25", "--out", "c.mid", folder=tmp_path
    )
    assert completed.code == 0, completed.err
    assert completed.out.split() == ["c.png", "c.mid", "c.wav"]
    domain = Chorales().domain
    soprano = domain.grid(domain.read(tmp_path / "c.mid", "FILE"))[0][:, 0]
    assert torch.equal(soprano, domain.grid(given)[0][: len(soprano), 0])

    score = run_arlm("score", run, bach, "--json", "--html", "s.html", folder=tmp_path)
    figures = json.loads(score.out.splitlines()[0])
    assert figures["tokens"] == len(given)
    assert figures["notes"] == Chorales().domain.units(given).sum()
    assert "red notes are surprising" in (tmp_path / "s.html").read_text()
    evaluated = run_arlm("evaluate", run, folder=tmp_path)
    assert "bits_per_note" in evaluated.out + evaluated.err
    compared = run_arlm("compare", f"a={run}", f"b={run}", folder=tmp_path)
    assert compared.code == 0, compared.err
    assert "<audio" in (tmp_path / "comparison.html").read_text()
