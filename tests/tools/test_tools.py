"""The scripts run, and refuse bad input in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
from conftest import ROOT

from arlm.domains import TextDomain
from arlm.models.pixelcnn import PixelCNN
from arlm.models.transformer import TransformerLanguageModel
from arlm.tokenizers import BPETokenizer
from arlm.training.module import AutoregressiveModule
from datamodules.digits import Digits
from datamodules.python_docs import PythonDocs
from tools.bench.scale import Rates, needs
from tools.bench.sft import data_of, rows_a_step


def run(*arguments: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)


def test_a_trained_tokenizer_round_trips_and_compresses(tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "deep" / "tokenizer.json"
    text.write_text("the cat sat on the mat. ß 日本\n" * 50, encoding="utf-8")
    done = run(ROOT / "tools/train_tokenizer.py", text, "--vocab-size", 270, "--out", out)
    assert done.returncode == 0, done.stderr
    domain = TextDomain(BPETokenizer(out.read_text(encoding="utf-8")))
    assert domain.vocab_size == 270
    tokens = domain.encode("the cat ß")
    assert domain.decode(tokens) == "the cat ß"
    assert len(tokens) < len("the cat ß".encode())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope.txt"], "files: cannot read 'nope.txt'"),
        (["empty.txt"], "files: ['empty.txt'] are empty"),
        (["full.txt", "--vocab-size", 100], "--vocab-size: 100 is out of range"),
        (["full.txt", "--out", "/proc/x.json"], "--out: cannot write '/proc/x.json'"),
        (["full.txt", "--vocab", 300], "--vocab: unknown option; did you mean '--vocab-size'?"),
    ],
    ids=str,
)
def test_bad_input_of_train_tokenizer_is_one_line(
    tmp_path: Path, arguments: list, message: str
) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "full.txt").write_text("some text " * 9)
    done = run(ROOT / "tools/train_tokenizer.py", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("arlm: error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_curves_of_no_run_are_refused(tmp_path: Path) -> None:
    done = run("-m", "tools.plot_curves", tmp_path, "--out", tmp_path / "x.png")
    assert done.returncode == 2
    assert "holds no metrics.csv; train first" in done.stderr


@pytest.mark.parametrize(
    ("bench", "message"),
    [
        (["attention", "--threads", 1, "--repeats", 1], "ratio"),
        pytest.param(
            ["lightning_overhead", "--steps", 10, "--repeats", 1],
            "ms a step",
            marks=pytest.mark.slow,
        ),
        (["sampling", "--only", "Row", "--batches", 1, "--repeats", 1, "--threads", 1], "gap"),
        pytest.param(
            *(["ragged", "--rows", 3, "--slots", 2, "--rounds", 1, "--only", "LSTM"], "0 differ"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(["commits", ROOT, "--only", "LSTM 2 x 188 16", "--rounds", 1], "new / old"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [
                *("memory", "--vocabulary", 900, "--length", 32, "--width", 16, "--depth", 1),
                *("--heads", 1, "--steps", 1),
            ],
            "blocks, activations again",
            marks=pytest.mark.slow,
        ),
        (["training", "--only", "Row", "--batch", 2, "--repeats", 1, "--threads", 1], "bf16"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_benches_run(bench: list, message: str) -> None:
    done = run("-m", f"tools.bench.{bench[0]}", *bench[1:])
    assert done.returncode == 0, done.stderr
    assert message in done.stdout
    assert "False" not in done.stdout


def test_fixed_points_are_counted(tmp_path: Path) -> None:
    module = AutoregressiveModule(Digits().spec, partial(PixelCNN, width=4, depth=1, head_width=4))
    flags = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    trainer = pl.Trainer(**flags, max_steps=1, limit_val_batches=0, enable_progress_bar=False)
    trainer.fit(module, Digits())
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    short = ["--batch", 2, "--repeats", 1, "--threads", 1]
    done = run("-m", "tools.bench.fixed_point", tmp_path / "x.ckpt", *short)
    assert done.returncode == 0, done.stderr
    assert "64 tokens in" in done.stdout
    assert "100 % of rows the same" in done.stdout


@pytest.mark.slow
def test_drafts_are_measured(tmp_path: Path) -> None:
    data = PythonDocs(length=20)
    module = AutoregressiveModule(
        data.spec, partial(TransformerLanguageModel, width=8, depth=1, heads=2)
    )
    flags = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    trainer = pl.Trainer(**flags, max_steps=1, limit_val_batches=0, enable_progress_bar=False)
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    short = ["--draft", tmp_path / "x.ckpt", "--draft", "lookup", "--tokens", 4, "--rows", 1]
    done = run("-m", "tools.bench.speculative", tmp_path / "x.ckpt", *short, "--repeats", 1)
    assert done.returncode == 0, done.stderr
    assert "4     4 passes" in done.stdout
    assert "100.0% of 16 proposals accepted; 1 of 1 rows equal" in done.stdout


def test_needs_of_a_run_follow_from_rates() -> None:
    rates = Rates(flops=1e11, encoded=4e6, bytes_per_token=4.0, loaded=1e7, written=1e9)
    small, large = needs(1e9, 1e7, rates), needs(1e12, 1e9, rates)
    assert small["training, core-days"] == f"{6e16 / 1e11 / 86400:,.0f}" == "7"
    assert large["training, core-days"] == f"{6e21 / 1e11 / 86400:,.0f}" == "694,444"
    assert small["encoding, core-days"] == "0.01"  # 1,000 seconds
    assert (small["text"], large["text"]) == ("4 GB", "4 TB")
    assert (small["checkpoint"], large["checkpoint"]) == ("120 MB", "12 GB")
    order = "order of rows, memory of a process"
    assert (small[order], large[order]) == ("7.81 MB", "0 B")  # computed, above 2^22 rows


@pytest.mark.slow
def test_the_study_compares_three_ways_from_one_command(tmp_path: Path) -> None:
    study = [
        "--out",
        tmp_path,
        "--corpora",
        "docs",
        "--seeds",
        1,
        "--steps",
        4,
        "--precision",
        "32-true",
    ]
    done = run(ROOT / "examples/rnn_vs_transformer.py", *study, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    heads = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [name for line in heads for name in line] == [
        "transformer",
        "lstm_same_tokens",
        "lstm_same_time",
    ]
    assert "<svg" in (tmp_path / "docs.html").read_text()
    again = run(ROOT / "examples/rnn_vs_transformer.py", *study, folder=tmp_path)
    assert "arlm fit" not in again.stdout  # finished runs are not repeated


RECIPES = ["gpt: nanoGPT's recipe", "lstm 1 x 392, carried"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(
            ["recipes", *RECIPES, "--seconds", 1, "--threads", 1],
            "carried ",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(["corpus", "memory", "--gigabytes", 0.02, "--folder", "FOLDER"], "G tokens"),
            marks=pytest.mark.slow,
        ),
        pytest.param(["corpus", "loading"], "a batch", marks=pytest.mark.slow),
        pytest.param(
            *(["corpus", "sizes", "--megabytes", 1, 20, "--folder", "FOLDER"], "20 MB: first"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda value: value[0] + value[1] if isinstance(value, list) else None,
)
def test_benches_of_text_run(
    arguments: list, message: str, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    name, *options = [tmp_path if a == "FOLDER" else a for a in arguments]
    done = run("-m", f"tools.bench.{name}", *options)
    assert done.returncode == 0, done.stderr
    assert message in done.stdout


@pytest.mark.slow
def test_the_bench_of_language_models_runs_beside_a_peer(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from torch import nn\n"
        "class RNNModel(nn.Module):\n"
        "    def __init__(self, kind, vocab, size, width, depth, dropout):\n"
        "        super().__init__()\n"
        "        self.width, self.depth, self.table = width, depth, nn.Embedding(vocab, size)\n"
        "        self.cell, self.out = nn.LSTM(size, width, depth), nn.Linear(width, vocab)\n"
        "    def init_hidden(self, rows):\n"
        "        return (self.out.weight.new_zeros(self.depth, rows, self.width),) * 2\n"
        "    def forward(self, tokens, hidden):\n"
        "        outputs, hidden = self.cell(self.table(tokens), hidden)\n"
        "        return self.out(outputs).flatten(0, 1).log_softmax(-1), hidden\n"
    )
    short = ["--width", 16, "--repeats", 1, "--threads", 1, "--eager"]
    done = run("-m", "tools.bench.language_models", "words", tmp_path, *short)
    assert done.returncode == 0, done.stderr
    assert "1.00 times the peer" in done.stdout
    assert "arlm, bf16" in done.stdout


def test_bleu_of_the_tutorial(tmp_path: Path) -> None:
    pytest.importorskip("spacy", reason="needs the extra `bench`")
    (tmp_path / "ours.txt").write_text(
        "A dog runs around the big house.\nTwo men are talking now.\n"
    )
    (tmp_path / "theirs.txt").write_text(
        "a dog runs around the big house.\ntwo men are talking now.\n"
    )
    done = run("-m", "tools.bench.tutorial_bleu", tmp_path / "ours.txt", tmp_path / "theirs.txt")
    assert done.stdout.startswith("BLEU = 100.00"), done.stderr
    done = run("-m", "tools.bench.tutorial_bleu", tmp_path / "ours.txt", "nothing")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


ATTENTION = """
class Encoder(nn.Module):
    def __init__(self, words, *sizes):
        super().__init__()
class Attention(Encoder): pass
class Decoder(Encoder): pass
class Seq2Seq(nn.Module):
    def __init__(self, encoder, decoder, pad, device):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
    def forward(self, source, lengths, target):
        assert source.shape[1] == target.shape[1] == len(lengths)
        assert (lengths.diff() <= 0).all()
        return self.weight * torch.ones(*target.shape, 40)
"""
TRANSFORMER = (
    ATTENTION.replace("pad, device", "pad, filling, device")
    .replace("def forward(self, source, lengths, target):", "def forward(self, source, target):")
    .replace("source.shape[1] == target.shape[1] == len(lengths)", "len(source) == len(target)")
    .replace("        assert (lengths.diff() <= 0).all()\n", "")
    .replace("torch.ones(*target.shape, 40)", "torch.ones(*target.shape, 40), None")
)


@pytest.mark.slow
def test_the_bench_of_translation_trains_beside_a_peer(tmp_path: Path) -> None:
    (tmp_path / "legacy").mkdir()
    (tmp_path / "multi30k").mkdir()
    for number, source in ((4, ATTENTION), (6, TRANSFORMER)):
        cells = [
            {"cell_type": "code", "source": [f"class {part}"]}
            for part in source.split("\nclass ")[1:]
        ]
        (tmp_path / f"legacy/{number} - x.ipynb").write_text(json.dumps({"cells": cells}))
    for split in ("train", "val", "test_2016_flickr"):
        for language in ("de", "en"):
            lines = (f"{language} {i % 7} {'wort ' * (i % 5)}." for i in range(300))
            (tmp_path / f"multi30k/{split}.{language}").write_text("\n".join(lines))
    short = ["--data-dir", tmp_path, "--repeats", 1, "--threads", 1, "--quick"]
    done = run("-m", "tools.bench.translation", "training", tmp_path, *short)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "target tokens/s" in line]
    assert [line.split(",")[0] for line in lines] == ["tutorial", "arlm"] * 2


@pytest.mark.parametrize("ragged", [False, True])
def test_the_bench_of_fine_tuning_gives_both_equal_rows(ragged: bool) -> None:
    data = data_of(Namespace(rows=16, length=64, vocab=50, ragged=ragged))
    sizes = [len(data.dataset("train")[rows].tokens) for rows in data.order("train")]
    assert rows_a_step(data) == round(sum(sizes) / len(sizes))
    assert (rows_a_step(data) > 20) == ragged
    assert ragged or rows_a_step(data) == 16
