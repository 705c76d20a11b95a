"""Translation end to end: labels smoothed in training only, lines in and out, attention to look at."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Result, run_arlm
from PIL import Image

from arlm.checkpoints import load
from arlm.evaluation.bleu import score_translations
from arlm.inference.translator import Translator
from arlm.sampling.processors import parse_processors

LINES = ["Fri, the 3rd of March 2017", "12 MAY in 1944", "on Sunday, '04, AUGUST 21"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with short runs on dates: with attention and without; the first knows what a year is."""
    folder = tmp_path_factory.mktemp("dates")
    for name in ("attention", "lstm"):
        config = ROOT / "configs" / "translation" / f"dates_{name}.yaml"
        more = ["--model.net.width", "32", "--data.pairs", "4000", "--trainer.max_epochs", "4"]
        more += ["--run-name", f"dates_{name}"]
        done = run_arlm("fit", "--config", config, *more, "--samples.n", "5", folder=folder)
        assert done.code == 0, done.err
    (folder / "dates.txt").write_text("\n".join(LINES) + "\n")
    return folder


def test_smoothing_is_for_training_only(run: Path) -> None:
    """The same run with and without: the first logged loss is that of the same weights."""
    losses = []
    for smoothing in ("0.0", "0.4"):
        config = ROOT / "configs/translation/dates_attention.yaml"
        more = [
            "--model.objective.label_smoothing",
            smoothing,
            "--trainer.logger.name",
            f"s{smoothing}",
        ]
        short = ["--trainer.max_steps", "2", "--trainer.log_every_n_steps", "1", "--samples.n", "0"]
        end = ["--trainer.limit_val_batches", "1", "--trainer.val_check_interval", "2"]
        done = run_arlm("fit", "--config", config, *more, *short, *end, folder=run)
        assert done.code == 0, done.err
        metrics = (run / f"runs/s{smoothing}/version_0/metrics.csv").read_text().splitlines()
        at = metrics[0].split(",").index("train/nll")
        losses.append([float(row.split(",")[at]) for row in metrics[1:] if row.split(",")[at]])
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-7)
    assert losses[0][1] != losses[1][1]


def test_a_killed_run_resumes_to_the_same_bits(run: Path) -> None:
    """A resume in the middle of an epoch continues the batches by length, and everything else."""
    config = ROOT / "configs/translation/dates_attention.yaml"
    more = ["--data.pairs", "2000", "--samples.n", "0", "--model.net.dropout", "0.2"]
    steps = ["--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1"]
    every = ["--checkpoint.every_n_train_steps", "15", "--checkpoint.save_top_k", "-1"]
    every += ["--checkpoint.filename", "{step}", "--checkpoint.monitor", "null"]
    name = "--trainer.logger.name"
    done = run_arlm("fit", "--config", config, *more, *steps, *every, name, "whole", folder=run)
    assert done.code == 0, done.err
    resumed = ["--ckpt_path", run / "runs/whole/version_0/checkpoints/step=15.ckpt"]
    again = [*more, *steps, *every, *resumed, name, "resumed"]
    done = run_arlm("fit", "--config", config, *again, folder=run)
    assert done.code == 0, done.err
    for step in (30, 45):  # of 48, in two epochs
        whole, other = (
            torch.load(run / f"runs/{n}/version_0/checkpoints/step={step}.ckpt", weights_only=True)
            for n in ("whole", "resumed")
        )
        for key, weight in whole["state_dict"].items():
            assert torch.equal(weight, other["state_dict"][key]), (step, key)


def test_tensorboard_gets_attention(run: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = ROOT / "configs/translation/dates_attention.yaml"
    short = ["--data.pairs", "500", "--trainer.max_epochs", "1", "--samples.n", "3"]
    board = ["--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "board"]
    done = run_arlm("fit", "--config", config, *short, *board, folder=run)
    assert done.code == 0, done.err
    (events,) = (run / "board").rglob("events*")
    board = EventAccumulator(str(events), size_guidance={"images": 0}).Reload()
    (image,) = board.Images("attention")
    assert image.width > 300
    assert "samples/text_summary" in board.Tags()["tensors"]


def test_a_translation_does_not_depend_on_its_neighbours(run: Path) -> None:
    loaded = load(run / "runs/dates_attention")
    for search in (
        {"beam": 3, "n_best": 2},
        {"processors": parse_processors("temperature=1.5"), "n_best": 2},
    ):
        translator = Translator(loaded.net, loaded.domain, **search, batch_tokens=70)
        sources = [translator.encode(line, "line") for line in LINES * 4]
        together = translator(sources)
        assert [len(each) for each in together] == [2] * 12
        texts = [[t.text for t in each] for each in together]
        assert [[t.text for t in each] for each in translator(sources[:5])] == texts[:5]
        if "beam" in search:
            assert [[t.text for t in each] for each in together[:3]] == [
                [t.text for t in each] for each in together[3:6]
            ]
            for each in together:
                assert each[0].score >= each[1].score
        else:
            assert len({t.text for each in together for t in each}) > 6  # each line its own draw


def test_the_greedy_processor_equals_a_beam_of_1(run: Path) -> None:
    loaded = load(run / "runs/dates_attention")
    sources = [Translator(*loaded[:2]).encode(line, "line") for line in LINES]
    greedy = Translator(*loaded[:2], processors=parse_processors("greedy"))(sources)
    beam = Translator(*loaded[:2], beam=1)(sources)
    assert [each[0].text for each in greedy] == [each[0].text for each in beam]
    assert greedy[0][0].log_prob == pytest.approx(beam[0][0].log_prob, abs=1e-4)


def test_scores_of_translations() -> None:
    references = ["A dog runs around the house.", "Two men talk about the weather."]
    same = score_translations(references, references)
    assert (round(same.bleu, 6), round(same.chrf, 6), same.exact) == (100, 100, 100)
    lower = score_translations([r.lower() for r in references], references)
    assert lower.bleu < 100
    assert round(lower.bleu_lowercase, 6) == 100
    assert lower.exact == 0
    assert "case:mixed" in same.signature
    assert "tok:13a" in same.signature


def translate(
    run: Path, *arguments: object, given: bytes | None = None, monkeypatch=None
) -> Result:
    if given is not None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    return run_arlm("translate", "runs/dates_attention", *arguments, folder=run)


def test_file_and_standard_input_alike(run: Path, monkeypatch) -> None:
    file = translate(run, "dates.txt")
    assert file.code == 0, file.err
    lines = file.out.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", line) for line in lines)  # it has learnt as much
    for size in (1, 2, 100):
        piped = translate(
            run, "--batch-size", size, given="\n".join(LINES).encode(), monkeypatch=monkeypatch
        )
        assert piped.out == file.out
    (run / "dates.gz").write_bytes(gzip.compress("\n".join(LINES).encode()))
    assert translate(run, "dates.gz").out == file.out
    os.mkfifo(run / "pipe")
    writer = threading.Thread(target=(run / "pipe").write_text, args=["\n".join(LINES)])
    writer.start()
    assert translate(run, "pipe").out == file.out
    writer.join()
    missing = translate(run, "dates.txt", "--out", "out/iso.txt").error()
    assert "--out: the folder 'out' of 'iso.txt' does not exist; make it" in missing
    (run / "out").mkdir()
    out = translate(run, "dates.txt", "--out", "out/iso.txt")
    assert out.code == 0
    assert (run / "out/iso.txt").read_text() == file.out


def test_n_best_and_processors(run: Path) -> None:
    rows = [row.split("\t") for row in translate(run, "dates.txt", "--n-best", 3).out.splitlines()]
    assert [row[0] for row in rows] == ["1", "1", "1", "2", "2", "2", "3", "3", "3"]
    scores = [float(row[3]) for row in rows]
    assert scores[:3] == sorted(scores[:3], reverse=True)
    draws = {
        translate(run, "dates.txt", "--processors", "temperature=2", "--seed", s).out
        for s in (1, 1, 2)
    }
    assert len(draws) == 2
    drawn = [
        translate(
            run, "dates.txt", "--processors", "temperature=2", "--n-best", 2, "--batch-size", size
        )
        for size in (1, 2, 100)
    ]
    # A draw does not depend on the lines read with it; its nats do in their last digit, which is rounded.
    texts = [[row.split("\t")[:2] for row in result.out.splitlines()] for result in drawn]
    assert len(texts[0]) == 6
    assert texts[1:] == texts[:1] * 2


def test_reference_and_attention(run: Path) -> None:
    (run / "iso.txt").write_text("2017-03-03\n1944-05-12\n2004-08-21\n")
    done = translate(run, "dates.txt", "--reference", "iso.txt", "--attention", "map.png")
    assert done.code == 0, done.err
    assert "bleu " in done.err
    assert "|tok:13a|" in done.err
    assert Image.open(run / "map.png").size[0] > 300
    samples = list((run / "runs/dates_attention/version_0/samples").glob("*"))
    assert {path.suffix for path in samples} == {".png", ".txt"}
    assert not list((run / "runs/dates_lstm/version_0/samples").glob("*.png"))


def test_evaluate_and_compare(run: Path) -> None:
    done = run_arlm("evaluate", "runs/dates_attention", "--json", "--baselines", folder=run)
    record = json.loads(done.out)
    assert record["tokens"] == 11000
    assert set(record["models"]) == {"LSTMSeq2Seq", "uniform", "unigram", "5-gram"}
    figures = record["translations, beam 5"]
    assert 0 <= figures["exact"] <= 100
    assert figures["signature"].startswith("nrefs:1|case:mixed")
    plain = run_arlm("evaluate", "runs/dates_lstm", "--beam", "2", folder=run)
    assert "translations, beam 2: bleu" in plain.out
    done = run_arlm("compare", "runs/dates_attention", "runs/dates_lstm", folder=run)
    assert done.code == 0, done.err
    page = (run / "comparison.html").read_text()
    assert page.count('<img alt="attention"') == 1
    assert page.count("Translations of the same sentences") == 1


BAD_LINES = [
    (b"12 MAY in 1944\n\n12 MAY in 1945\n", "line 2 of standard input: it is empty", 1),
    (b"12 MAY in 1944\n" + b"x" * 99 + b"\n", "it has 99 tokens, but the network takes 1 to 64", 1),
    (b"12 MAY in 1944\n\xff\n", "line 2 of standard input: byte 1 is not UTF-8", 1),
    (b"", "standard input: it is empty; give one sentence per line", 0),
]
CUT = gzip.compress(b"12 MAY in 1944\n" * 9)[:-9]


@pytest.mark.parametrize(("given", "message", "written"), BAD_LINES)
@pytest.mark.parametrize("size", [1, 100])
def test_what_was_translated_stays(run, monkeypatch, given, message, written, size) -> None:
    done = translate(run, "--batch-size", size, given=given, monkeypatch=monkeypatch)
    assert message in done.error()
    assert len(done.out.splitlines()) == written


@pytest.mark.parametrize("content", [CUT, b"\x1f\x8bbroken"], ids=["cut", "broken"])
def test_a_broken_archive(run: Path, content: bytes) -> None:
    (run / "cut.gz").write_bytes(content)
    assert "file: cannot read 'cut.gz' (" in translate(run, "cut.gz").error()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nothing.txt"],
            "FILE: 'nothing.txt' does not exist; give a file with one sentence per line",
        ),
        (["12 MAY in 1944"], "pipe lines in: echo TEXT | arlm translate RUN"),
        (["dates.txt", "--beam", "0"], "--beam: 0"),
        (["dates.txt", "--n-best", "6"], "--n-best: 6 is out of range; choose 1 to 5"),
        (["dates.txt", "--length-penalty", "-1"], "--length-penalty: -1.0"),
        (["dates.txt", "--processors", "nonsense"], "unknown processor 'nonsense'"),
        (["dates.txt", "--reference", "nothing.txt"], "--reference: cannot read"),
        (["dates.txt", "--reference", "one.txt"], "has 1 lines for 3 translations"),
        (["dates.txt", "--attention", "m.jpg"], "--attention: 'm.jpg' does not end in .png"),
        (["dates.txt", "--bean", "5"], "did you mean '--beam'?"),
    ],
)
def test_bad_options(run: Path, arguments: list[str], message: str) -> None:
    (run / "one.txt").write_text("2017-03-03\n")
    assert message in translate(run, *arguments).error()


def test_other_verbs_and_checkpoints_are_refused(run: Path, monkeypatch) -> None:
    done = run_arlm("sample", "runs/dates_attention", folder=run)
    assert (
        "translates, which `arlm sample` does not do; use `arlm attention`, `arlm evaluate`, "
        in done.error()
    )
    done = run_arlm(
        "translate", "runs/dates_lstm", "dates.txt", "--attention", "no.png", folder=run
    )
    assert "--attention: LSTMSeq2Seq was trained without attention" in done.error()
    monkeypatch.setattr(sys, "stdin", None)
    done = run_arlm("translate", "runs/dates_lstm", folder=run)
    assert "standard input: it is closed" in done.error()


def test_a_reader_that_has_enough(run: Path) -> None:
    """As with `| head -1`: no traceback, and what was read stays."""
    (run / "many.txt").write_text("\n".join(LINES * 2000) + "\n")
    words = [sys.executable, "-m", "arlm", "translate", "runs/dates_attention", "many.txt"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*words, "--beam", "1", "--batch-size", "50"],
        cwd=run,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert len(process.stdout.readline()) > 1
        process.stdout.close()
        assert process.stderr is not None
        error = process.stderr.read()
        assert process.wait(60) == 141
    assert len(error.splitlines()) == 1  # it says which checkpoint it read
