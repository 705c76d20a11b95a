"""Pictures in, captions out: every verb that applies, from files of pictures."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from conftest import run_arlm
from PIL import Image

from datamodules.captioned_digits import CaptionedDigits

RUN = "runs/captions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run, and canvases of the test split with their captions."""
    folder = tmp_path_factory.mktemp("captions")
    short = ["--data.count", "640", "--trainer.max_epochs", "2", "--samples.n", "5"]
    given = ["--config", "digits_captions", *short, "--run-name", "captions"]
    done = run_arlm("fit", *given, folder=folder)
    assert done.code == 0, done.err
    pictures, captions = CaptionedDigits(count=1).sentences("test")
    for index in range(3):
        native = pictures[index].squeeze(-1).numpy()
        Image.fromarray(native).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(captions[index] + "\n")
    (folder / "captions.txt").write_text("\n".join(captions[:3]) + "\n")
    (folder / "pairs.tsv").write_text("".join(f"{i}.png\t{captions[i]}\n" for i in range(3)))
    return folder


def test_a_picture_is_given_as_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_arlm("translate", RUN, "0.png", "1.png", "2.png", folder=folder)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) == 3
    words = {
        *[
            "a",
            "bold",
            "thin",
            "of",
            "left",
            "right",
            "above",
            "below",
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
        ]
    }
    assert {word for line in lines for word in line.split()} <= words | {"seven", "eight", "nine"}
    given = io.TextIOWrapper(io.BytesIO(b"0.png\n1.png\n2.png\n"))
    monkeypatch.setattr(sys, "stdin", given)
    assert run_arlm("translate", RUN, folder=folder).out == done.out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    empty = "standard input: it is empty; give one path of a picture per line"
    assert empty in run_arlm("translate", RUN, folder=folder).error()
    alone = [run_arlm("translate", RUN, f"{i}.png", folder=folder).out for i in range(3)]
    assert "".join(alone) == done.out


def test_attention_over_pixels_and_exact_matches(folder: Path) -> None:
    given = ["0.png", "1.png", "2.png", "--reference", "captions.txt", "--attention", "map.png"]
    done = run_arlm("translate", RUN, *given, folder=folder)
    assert done.code == 0, done.err
    assert "exact " in done.err
    width, height = Image.open(folder / "map.png").size
    words = max(len(line.split()) for line in done.out.splitlines())
    assert width == 125 * (1 + words)  # the picture, and a copy for each word
    assert height > 300  # a row for each picture
    samples = {path.suffix for path in (folder / RUN / "version_0" / "samples").iterdir()}
    assert samples == {".png", ".txt"}
    attends = ["0.png", "--html", "attention.html", "--out", "heads.png"]
    done = run_arlm("attention", RUN, *attends, folder=folder)
    assert done.code == 0, done.err
    assert '"context": 9' in (folder / "attention.html").read_text()  # patches side by side


def test_a_picture_with_its_caption_is_scored(folder: Path) -> None:
    done = run_arlm("score", RUN, "pairs.tsv", "--json", folder=folder)
    assert done.code == 0, done.err
    *each, total = [json.loads(line) for line in done.out.splitlines()]
    assert [one["file"] for one in each] == ["pairs.tsv:1", "pairs.tsv:2", "pairs.tsv:3"]
    assert total["nats"] == pytest.approx(sum(one["nats"] for one in each))
    done = run_arlm("score", RUN, "1.png", "1.txt", "--json", "--html", "s.html", folder=folder)
    assert json.loads(done.out)["nats"] == pytest.approx(each[1]["nats"], rel=1e-5)
    assert '<img alt="picture"' in (folder / "s.html").read_text()


def test_evaluate_and_compare(folder: Path) -> None:
    done = run_arlm("evaluate", RUN, "--json", "--beam", "1", "--baselines", folder=folder)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert 0 <= record["captions, beam 1"]["exact"] <= 100
    assert {"uniform", "unigram", "5-gram"} < set(record["models"])
    done = run_arlm("compare", RUN, "--split", "val", folder=folder)
    assert done.code == 0, done.err
    page = (folder / "comparison.html").read_text()
    assert page.count('<img alt="captions"') == page.count('<img alt="attention"') == 1
    assert "Captions of the same pictures" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["translate", RUN, "nothing.png"], "FILE: cannot read 'nothing.png' (No such file"),
        (["translate", RUN, "0.txt"], "FILE: '0.txt' is not an image; give a PNG or JPEG file"),
        (["translate", RUN, "wide.png"], "'wide.png' is 20x18 pixels; give an image of 18x18"),
        (["attention", RUN, "wide.png"], "TEXT: 'wide.png' is 20x18 pixels"),
        (["score", RUN, "0.png"], "FILE: '0.png' is not UTF-8 text"),
        (["sample", RUN], "writes captions of pictures, which `arlm sample` does not do; use"),
    ],
)
def test_mistakes(folder: Path, arguments: list[str], message: str) -> None:
    Image.new("L", (20, 18)).save(folder / "wide.png")
    assert message in run_arlm(*arguments, folder=folder).error()


def test_what_was_captioned_before_a_mistake_stays(folder: Path) -> None:
    done = run_arlm("translate", RUN, "0.png", "0.txt", folder=folder)
    assert "'0.txt' is not an image" in done.error()
    assert len(done.out.splitlines()) == 1
    (folder / "kept.txt").write_text("kept")
    run_arlm("translate", RUN, "nothing.png", "--out", "kept.txt", folder=folder).error()
    assert (folder / "kept.txt").read_text() == "kept"
