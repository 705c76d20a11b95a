"""Classifiers by the command line: fit, from trained text and from word vectors, evaluate, classify, compare."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Result, run_arlm

import arlm as library

SHORT = ["--trainer.max_steps", 3, "--samples.n", 2, "--trainer.accelerator", "cpu"]
LSTM = "arlm.models.rnn.LSTMLanguageModel"


@pytest.fixture
def arlm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Run the command line in an empty folder with a text and labelled lines."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("a good film and a bad film, or 0123456789. " * 60)
    lines = [
        f'"a {word} film {i}",{label}'
        for i in range(40)
        for word, label in (("good", 1), ("bad", 0))
    ]
    Path("rows.csv").write_text("\n".join(["text,label", *lines, ""]))
    return run_arlm


def config(name: str, net: dict, **data: object) -> list[object]:
    """Options of a run on the labelled lines."""
    given = {"path": "rows.csv", "tokenizer": "character", "min_count": 1, "length": 32} | data
    content = {
        "seed_everything": 0,
        "data": {"class_path": "datamodules.labelled_text.LabelledText", "init_args": given},
        "model": {
            "net": net,
            "objective": {"class_path": "arlm.training.objectives.Classification"},
        },
    }
    Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
    return ["fit", "--config", f"{name}.yaml", *SHORT]


def classifier(base: dict, **arguments: object) -> dict:
    return {"class_path": "arlm.adapters.Classifier", "init_args": {"base": base, **arguments}}


def lstm(**arguments: object) -> dict:
    return {"class_path": LSTM, "init_args": {"width": 8, "depth": 1} | arguments}


def test_from_scratch_and_evaluated_and_compared(arlm) -> None:
    done = arlm(*config("one", classifier(lstm(), pooling="concat", lm_weight=0.5)))
    assert done.code == 0, done.err
    assert "arlm classify runs/one" in done.err
    assert list(Path("runs/one").glob("*/samples/*.txt"))
    found = arlm("evaluate", "runs/one", "--json", "--baselines")
    record = json.loads(found.out)
    assert set(record["classification"]) == {"accuracy", "f1", "matthews"}
    mean, low, high = record["classification"]["accuracy"]
    assert low < mean < high
    shown = arlm("evaluate", "runs/one").out
    assert f"classification: accuracy {mean:.4f} [{low:.4f}, {high:.4f}] f1 " in shown
    assert arlm(*config("two", classifier(lstm(width=4)))).code == 0
    compared = arlm("compare", "runs/one", "runs/two", "--json")
    assert compared.code == 0, compared.err
    models = json.loads(compared.out)["models"]
    tests = [model["mcnemar"] for model in models if "mcnemar" in model]
    assert len(tests) == 1
    only_first, only_second, p = tests[0]
    count = record["tokens"]
    accuracies = sorted(model["accuracy"] * count for model in models)
    assert abs(only_first - only_second) == pytest.approx(accuracies[1] - accuracies[0], abs=1e-6)
    assert 0 < p <= 1
    assert "McNemar to the best" in arlm("compare", "runs/one", "runs/two").out


def test_classify_prints_a_class_a_line(arlm) -> None:
    assert arlm(*config("one", classifier(lstm()))).code == 0
    Path("in.txt").write_text("a good film\na bad film\n\n" + "x" * 99 + "\n")
    Path("fine.txt").write_text("a good film\na bad film\n")
    lines = arlm("classify", "runs/one", "fine.txt").out.splitlines()
    labels = [line.split("\t") for line in lines]
    assert [len(parts) for parts in labels] == [2, 2]
    assert all(name in "01" and 0.5 <= float(p) <= 1 for name, p in labels)
    rows = [
        json.loads(line)
        for line in arlm("classify", "runs/one", "fine.txt", "--json").out.splitlines()
    ]
    assert [row["label"] for row in rows] == [name for name, _ in labels]
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in rows)
    alone = arlm("classify", "runs/one", "fine.txt", "--batch-size", 1).out.splitlines()
    assert alone == lines
    refused = arlm("classify", "runs/one", "in.txt")
    assert "line 3 of 'in.txt': text 1 of it is empty; give one" in refused.error()
    assert refused.out.splitlines() == lines  # those before are printed
    Path("long.txt").write_text("x" * 99 + "\n")
    assert (
        "line 1 of 'long.txt': it has 100 tokens, but the network takes 32"
        in arlm("classify", "runs/one", "long.txt").error()
    )
    assert "'none.txt' does not exist" in arlm("classify", "runs/one", "none.txt").error()
    Path("empty.txt").write_text("")
    assert (
        "FILE: it is empty; give one example a line"
        in arlm("classify", "runs/one", "empty.txt").error()
    )
    assert "`arlm sample` does not do; use `arlm classify` or" in arlm("sample", "runs/one").error()


def test_a_language_model_becomes_a_classifier_with_its_tokenizer(arlm) -> None:
    base = {
        "seed_everything": 0,
        "data": {
            "class_path": "datamodules.text_file.TextFile",
            "init_args": {"path": "text.txt", "tokenizer": "character", "length": 16},
        },
        "model": {"net": lstm()},
    }
    Path("base.yaml").write_text(yaml.safe_dump(base))
    assert arlm("fit", "--config", "base.yaml", *SHORT).code == 0
    pretrained = {
        "class_path": "arlm.adapters.pretrained",
        "init_args": {"checkpoint": "runs/base"},
    }
    still = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", 0.0]
    done = arlm(*config("tuned", classifier(pretrained)), *still)
    assert done.code == 0, done.err
    before, after = library.load("runs/base"), library.load("runs/tuned")
    assert after.domain.tokenizer.fingerprint == before.domain.tokenizer.fingerprint
    size = before.domain.vocab_size
    found = after.net.base.embed.weight
    assert found.shape[0] == size + 2  # <delimiter> and <extract>
    assert torch.equal(found[:size], before.net.embed.weight)
    shutil.rmtree("runs/base")
    assert arlm("evaluate", "runs/tuned").code == 0
    wrong = config("wrong", classifier(pretrained))
    assert "runs/base" in arlm(*wrong).error()


def test_word_vectors_begin_an_embedding(arlm) -> None:
    text = {
        "class_path": "datamodules.text_file.TextFile",
        "init_args": {"path": "text.txt", "tokenizer": "character"},
    }
    vectors = {
        "seed_everything": 0,
        "data": {
            "class_path": "datamodules.neighbours.Neighbours",
            "init_args": {"text": text, "window": 2},
        },
        "model": {
            "net": {"class_path": "arlm.models.skipgram.SkipGram", "init_args": {"width": 8}}
        },
    }
    Path("vectors.yaml").write_text(yaml.safe_dump(vectors))
    done = arlm("fit", "--config", "vectors.yaml", *SHORT)
    assert done.code == 0, done.err
    assert arlm("evaluate", "runs/vectors").code == 0
    begun = {
        "class_path": "arlm.adapters.with_embeddings",
        "init_args": {"net": lstm(), "checkpoint": "runs/vectors", "frozen": True},
    }
    done = arlm(*config("one", classifier(begun)))
    assert done.code == 0, done.err
    before, after = library.load("runs/vectors"), library.load("runs/one")
    size = before.domain.vocab_size
    assert torch.equal(after.net.base.embed.weight[:size], before.net.embed.weight)
    narrow = {**begun, "init_args": begun["init_args"] | {"net": lstm(width=6)}}
    error = arlm(*config("two", classifier(narrow))).error()
    assert "have 8 features, but the embedding of LSTMLanguageModel 6; choose equal widths" in error
    shutil.rmtree("runs/vectors")
    assert arlm("classify", "runs/one", "text.txt").code in (0, 2)
