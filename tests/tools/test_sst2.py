"""The study of SST-2, on a few made sentences and with one step of training."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest

from arlm.errors import UserError
from tools.sst2.__main__ import main, one_row, results, table
from tools.sst2.rows import NAMES, row


def sentences(folder: Path) -> None:
    """A folder laid out as SST-2, with 60 sentences a file."""
    (folder / "sst2").mkdir()
    for split in ("train", "dev", "test"):
        rows = [
            (
                i % 2,
                f"{split} film number {i} is {('bad', 'good')[i % 2]} and {'very ' * (i % 5)}long",
            )
            for i in range(60)
        ]
        with (folder / "sst2" / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("label", "sentence"), *rows])


def test_cheap_rows_and_the_table(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("ARLM_DATA_DIR", str(tmp_path))
    sentences(tmp_path)
    copied = "dev film number 3 is good and very very very long"
    text = tmp_path / "mine.txt"
    text.write_text("a film of mine is good\n" * 40 + f"here it says {copied}, too\n")
    folder = ["--folder", str(tmp_path / "study")]
    main(["text", str(text), *folder, "--vocab-size", "300"])
    assert "1 sentences of SST-2's validation and test were in it" in capsys.readouterr().out
    assert copied not in (tmp_path / "study" / "text.txt").read_text()
    for name in ("majority", "tfidf", "tfidf"):
        main(["row", name, *folder])
    found = results(tmp_path / "study")
    assert [(r["row"], r["accuracy"]) for r in found] == [
        ("majority", "0.5000"),
        ("tfidf", "1.0000"),
    ]
    assert "tfidf, seed 0 is in" in capsys.readouterr().out
    main(["table", *folder])
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in shown[2:]] == ["| majority", "| tfidf"]
    with pytest.raises(UserError, match="pretrain` first"):
        main(["row", "finetuned-lstm", *folder])


def test_a_pre_training_counts_only_with_all_of_its_steps(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    run = tmp_path / "study" / "runs" / "pretrain-lstm"
    checkpoint = run / "version_0" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    words = ["pretrain", "lstm", "--folder", str(tmp_path / "study"), "--steps"]
    with pytest.raises(UserError, match="it has 0 of 7 steps; remove it"):
        main([*words, "7"])
    checkpoint.touch()
    summary = SimpleNamespace(run={"step": 7})
    monkeypatch.setattr("arlm.checkpoints.summarise", lambda path: summary)
    main([*words, "7"])
    assert "is there already" in capsys.readouterr().out
    with pytest.raises(UserError, match="it has 7 of 8 steps"):
        main([*words, "8"])
    with pytest.raises(UserError, match="--steps: 0 is out of range"):
        main([*words, "0"])
    with pytest.raises(UserError, match="--epochs: 0 is out of range"):
        main(["row", "majority", "--epochs", "0", "--folder", str(tmp_path / "new")])


def test_a_missing_folder_is_made(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(UserError, match="`arlm fit` ended with 1"):
        main(["pretrain", "lstm", "--folder", str(tmp_path / "new" / "study")])


@pytest.mark.slow
def test_every_row_trains(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("ARLM_DATA_DIR", str(tmp_path))
    sentences(tmp_path)
    text = tmp_path / "mine.txt"
    text.write_text("a film of mine is good, or bad, or very long and dull\n" * 4000)
    folder = ["--folder", str(tmp_path / "study")]
    main(["text", str(text), *folder, "--vocab-size", "300"])
    for kind in ("lstm", "transformer", "vectors"):
        main(["pretrain", kind, "--steps", "2", *folder])
    for name in NAMES:
        main(["row", name, "--epochs", "1", *folder])
    main(["table", *folder])
    assert len(results(tmp_path / "study")) == len(NAMES)
    trained = {r["row"]: int(r["trained"]) for r in results(tmp_path / "study")}
    assert trained["frozen-lstm"] < trained["lora-lstm"] < trained["finetuned-lstm"]
    assert capsys.readouterr().out.count("p = ") == len(NAMES) - 4


def test_rows_are_configurations() -> None:
    assert callable(one_row)
    assert callable(table)
    for name in NAMES[2:]:
        found = row(name, 1)
        assert found["seed_everything"] == 1
        assert found["model"]["net"]["init_args"]["frozen"] == name.startswith("frozen")
