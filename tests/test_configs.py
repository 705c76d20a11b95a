"""Every file of configs/ is tried for one batch; every run begins with its launch line, time and result."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, run_arlm

from arlm.cli.trainer import TRAINER_DEFAULTS
from arlm.core import Spec
from arlm.domains import TextDomain
from arlm.inference import configurations
from arlm.sampling.processors import (
    History,
    LogitsProcessor,
    MemoryProcessor,
    all_processors,
    apply,
)
from arlm.sampling.processors.constraint import Constraint
from arlm.tokenizers import CharacterTokenizer

CONFIGS = ROOT / "configs"
OPTION = {  # the folders of fragments, each with the option that takes one
    "data": "--data",
    "model": "--model.net",
    "optimizer": "--model.optimizer",
    "sampler": "--model.sampler",
    "trainer": "--trainer",
}
FRAGMENTS = [path for path in sorted(CONFIGS.glob("*/*.yaml")) if path.parent.name in OPTION]
RUNS = [path for path in sorted(CONFIGS.glob("*/*.yaml")) if path.parent.name not in OPTION]
LARGE_RUNS = ("mnist", "cifar10", "wikitext", "shakespeare_nanogpt_gpu")
PUBLISHED = (
    "shakespeare",
    "wikitext",
    "study",
    "multi30k",
    "sst2",
    "neighbours",
    "text_to_text",
)  # of data_dir
LARGE = ["--data.batch_size", "2"]  # whatever the size of a paper's batch
RGB = [*LARGE, "--model.net.width", "33", "--model.net.head_width", "33"]  # three channel groups
TUNED = ["--model.learning_rates", '{"*": 0, "trained_prefix.*": 1}']
STATE = ["--model.learning_rates", '{"*": 0, "initial_state.*": 1}']
# Fragments that no run uses, each with a run to try it in and the options that it needs there.
STANDALONE: dict[str, tuple[str, list[str]]] = {
    "data/enwik8": ("text/docs_lstm", []),
    "data/fashion_mnist": ("images/digits_pixelcnn", LARGE),
    "data/image_folder": ("images/digits_pixelcnn", RGB),
    "data/kmnist": ("images/digits_pixelcnn", LARGE),
    "data/mnist_labels": ("images/digits_pixelcnn", LARGE),
    "data/movie_reviews": ("text/docs_lstm", []),
    "data/neighbours": ("text/docs_lstm", ["--model.net", "SkipGram"]),
    "data/python_stdlib": ("text/docs_lstm", []),
    "data/text8": ("text/docs_lstm", []),
    "data/wikitext103": ("text/docs_lstm", []),
    "data/wikitext103_raw": ("text/docs_lstm", []),
    "data/wikitext2_raw": ("text/docs_lstm", []),
    "model/alibi": ("text/docs_lstm", []),
    "model/gpt2": ("text/docs_lstm", LARGE),
    "model/gpt3_banded": ("text/docs_lstm", []),
    "model/gru": ("text/docs_lstm", []),
    "model/llama_small": ("text/docs_lstm", []),
    # The dates have two tokenizers.
    "model/lstm_additive": ("translation/dates_attention", ["--model.net.shared", "false"]),
    "model/lora": ("text/docs_lstm", []),
    "model/neural_ngram": ("text/docs_lstm", []),
    "model/prefix_tuning": ("text/docs_transformer", TUNED),
    "model/prompt_tuning": ("text/docs_transformer", TUNED),
    "model/trained_state": ("text/docs_lstm", STATE),
    "sampler/bad_words": ("images/digits_pixelcnn", []),
    "sampler/dry": ("images/digits_pixelcnn", []),
    "sampler/dynamic_temperature": ("images/digits_pixelcnn", []),
    "sampler/epsilon": ("images/digits_pixelcnn", []),
    "sampler/eta": ("images/digits_pixelcnn", []),
    "sampler/forced_tokens": ("images/digits_pixelcnn", []),
    "sampler/constraint": ("translation/dates_attention", []),
    "sampler/frequency_penalty": ("images/digits_pixelcnn", []),
    "sampler/greedy": ("images/digits_pixelcnn", []),
    "sampler/green_list": ("images/digits_pixelcnn", []),
    "sampler/keep_end": ("translation/dates_attention", []),
    "sampler/logit_bias": ("images/digits_pixelcnn", []),
    "sampler/max_new_tokens": ("translation/dates_attention", []),
    "sampler/min_new_tokens": ("translation/dates_attention", []),
    "sampler/min_p": ("images/digits_pixelcnn", []),
    "sampler/mirostat": ("images/digits_pixelcnn", []),
    "sampler/no_repeat_ngram": ("images/digits_pixelcnn", []),
    "sampler/notes": ("images/digits_pixelcnn", []),
    "sampler/notes_penalty": ("images/digits_pixelcnn", []),
    "sampler/presence_penalty": ("images/digits_pixelcnn", []),
    "sampler/repetition_penalty": ("images/digits_pixelcnn", []),
    "sampler/synth_id": ("images/digits_pixelcnn", []),
    "sampler/temperature": ("images/digits_pixelcnn", []),
    "sampler/top_h": ("images/digits_pixelcnn", []),
    "sampler/top_k": ("images/digits_pixelcnn", []),
    "sampler/top_n_sigma": ("images/digits_pixelcnn", []),
    "sampler/top_p": ("images/digits_pixelcnn", []),
    "sampler/typical": ("images/digits_pixelcnn", []),
    "sampler/xtc": ("images/digits_pixelcnn", []),
}
ELSEWHERE = {
    CONFIGS / "model/llama.yaml"
}  # tests/models/test_published_layouts.py, without its 27 GB


def fragments_of(path: Path) -> set[Path]:
    """The files that a run names."""

    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for entry in value:
                yield from strings(entry)
        elif isinstance(value, str):
            yield value

    content = yaml.safe_load(path.read_text())
    return {(path.parent / name).resolve() for name in strings(content) if name.endswith(".yaml")}


def one_batch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest, *arguments: str
) -> None:
    """Run `fit` for one batch of training and validation."""
    from arlm.__main__ import main

    for stem in {Path(a).stem for a in arguments}:
        if "cifar10" in stem:
            monkeypatch.setenv("ARLM_DATA_DIR", str(request.getfixturevalue("cifar")))
        elif stem == "image_folder":
            folder = request.getfixturevalue("photographs")
            arguments = (*arguments, "--data.path", str(folder))
        elif stem.startswith("chorales"):
            request.getfixturevalue("few_chorales")
        elif stem == "movie_reviews":
            request.getfixturevalue("few_reviews")
        elif stem in ("fashion_mnist", "kmnist"):
            folder = request.getfixturevalue("data_dir")
            if not any((folder / name).is_dir() for name in ("FashionMNIST", "KMNIST")):
                pytest.skip("needs FashionMNIST and KMNIST in ARLM_DATA_DIR")
        elif stem.startswith(("ptb", "enwik8", "text8")) or (
            stem.startswith("wikitext") and ("valtest" not in stem)
        ):
            monkeypatch.setenv("ARLM_DATA_DIR", str(request.getfixturevalue("corpora")))
        elif "mnist" in stem or stem.startswith(PUBLISHED):
            monkeypatch.setenv("ARLM_DATA_DIR", str(request.getfixturevalue("data_dir")))
    monkeypatch.chdir(tmp_path)
    if Path(arguments[1]).stem.endswith("distilled"):
        train_teacher(Path(arguments[1]))
    if Path(arguments[1]).stem.startswith("finetune"):
        train_first(Path(arguments[1]))
    fast = ["--trainer.fast_dev_run", "1", "--trainer.accelerator", "cpu", "--samples.n", "1"]
    monkeypatch.setattr(sys, "argv", ["arlm", "fit", *arguments, *fast])
    assert main() == 0


def train_teacher(path: Path) -> None:
    """Train the teacher that a run of distillation names, for one step."""
    teacher = Path(yaml.safe_load(path.read_text())["model"]["objective"]["init_args"]["teacher"])
    short = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--samples.n", "0"]
    done = run_arlm("fit", "--config", path.with_name(f"{teacher.name}.yaml"), *short)
    assert done.code == 0, done.err


def train_first(path: Path) -> None:
    """Train the network whose weights a run of fine-tuning starts from, for one step."""
    net = path.parent / yaml.safe_load(path.read_text())["model"]["net"]
    run = Path(yaml.safe_load(net.read_text())["init_args"]["checkpoint"]).name
    short = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--samples.n", "0"]
    done = run_arlm("fit", "--config", run, *short, "--trainer.accelerator", "cpu")
    assert done.code == 0, done.err


SLOW = {  # of each kind another run is tried in the fast tests
    *("shakespeare_nanogpt", "cifar10_pixelsnail", "cifar10_pixelcnnpp", "text_to_text"),
    *("multi30k_de_en_prefix_lm", "multi30k_en_de_transformer", "multi30k_de_en_lstm_seq2seq"),
    *("instructions_transformer", "mnist_row_lstm_full", "mnist_diagonal_bilstm_full"),
    *("chorales_lstm", "cifar10_diagonal_bilstm", "ptb_lstm_large"),
}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * (path.stem in SLOW)) for path in RUNS],
    ids=lambda p: p.stem,
)
def test_run(path: Path, monkeypatch, tmp_path, request, capsys) -> None:
    small = LARGE if path.stem.startswith(LARGE_RUNS) else []
    one_batch(monkeypatch, tmp_path, request, "--config", str(path), *small)
    logged = re.findall(r"val/\w+ (\S+)", capsys.readouterr().err)
    assert logged
    assert all(math.isfinite(float(value)) for value in logged)


@pytest.mark.parametrize("name", STANDALONE, ids=lambda name: name.replace("/", "-"))
def test_fragment(name: str, monkeypatch, tmp_path, request) -> None:
    base, options = STANDALONE[name]
    fragment = [OPTION[name.partition("/")[0]], str(CONFIGS / f"{name}.yaml")]
    config = ["--config", str(CONFIGS / f"{base}.yaml")]
    if found := re.search(r"checkpoint: runs/(\w+)", Path(fragment[1]).read_text()):
        monkeypatch.chdir(tmp_path)
        short = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--samples.n", "0"]
        assert (
            run_arlm("fit", "--config", found[1], *short, "--trainer.accelerator", "cpu").code == 0
        )
    one_batch(monkeypatch, tmp_path, request, *config, *fragment, *options)


def test_every_file_is_tried() -> None:
    assert sorted(CONFIGS.rglob("*.yaml")) == sorted(RUNS + FRAGMENTS)
    in_runs = set().union(*(fragments_of(path) for path in RUNS))
    alone = {CONFIGS / f"{name}.yaml" for name in STANDALONE} | ELSEWHERE
    assert in_runs | alone == set(FRAGMENTS)
    assert not in_runs & alone


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_a_schedule_has_the_epochs_of_its_run(size: str, monkeypatch, tmp_path, corpora) -> None:
    """They are written once, and one option changes both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARLM_DATA_DIR", str(corpora))
    done = run_arlm("fit", "--config", f"ptb_lstm_{size}", "--trainer.max_epochs", 2)
    assert "model.scheduler.hold: " in done.error()
    assert "choose 1 to epochs, 2" in done.error()


def test_no_two_runs_have_the_same_name() -> None:
    assert len({path.stem for path in RUNS}) == len(RUNS)  # a run's folder is named after the file


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_run_is_short_and_begins_with_launch_line_time_and_result(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert 6 <= len(lines) <= 14
    assert lines[0] == f"# arlm fit --config {path.stem}"
    assert not lines[2].startswith("#")
    found = configurations.about(path)
    assert re.fullmatch(r"[\d.]+ (s|min|hours?)|hours|days|weeks", found.time)
    measured = re.fullmatch(r"\d+\.\d+ (bits|nats)/[\w ]+|(accuracy|BLEU) \d+\.\d+", found.result)
    elsewhere = re.search(r"(published|pytorch-generative:|reports) \d\.\d{2,} bits/", found.note)
    # A result is of this project, or another one's is quoted in the note, or there is none.
    assert (measured is None) == (found.result == "not run here")
    assert measured is None or elsewhere is None


def test_every_run_is_found_by_its_name_and_listed() -> None:
    assert configurations.shipped() == {path.stem: path for path in RUNS}
    done = run_arlm("configs")
    for path in RUNS:
        found = configurations.about(path)
        (line,) = [n for n in done.out.splitlines() if n.split()[:1] == [path.stem]]
        assert line.split(maxsplit=1)[1].startswith(found.time)
        assert found.result in line
    for kind in configurations.FRAGMENTS:
        for name, path in configurations.shipped(kind).items():
            assert path in FRAGMENTS
            assert name in done.out
    assert (
        run_arlm("configs", "docs_lstm").out.strip()
        == configurations.shipped()["docs_lstm"].read_text().strip()
    )


def test_a_file_wins_over_a_shipped_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert configurations.resolve("docs_lstm") == str(CONFIGS / "text/docs_lstm.yaml")
    assert configurations.resolve("gru", "model.net") == str(CONFIGS / "model/gru.yaml")
    assert configurations.resolve("Digits", "data") == "datamodules.digits.Digits"
    (tmp_path / "docs_lstm").write_text("")
    (tmp_path / "gru").mkdir()
    assert configurations.resolve("docs_lstm") == "docs_lstm"
    assert configurations.resolve("gru", "model.net") == str(CONFIGS / "model/gru.yaml")
    assert configurations.resolve("nothing") == "nothing"


def test_the_configurations_of_a_wheel_are_inside_the_package(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "arlm" / "configs" / "text").mkdir(parents=True)
    (tmp_path / "arlm" / "configs" / "text" / "own.yaml").write_text("")
    (tmp_path / "configs").mkdir()  # another package's
    monkeypatch.setattr(configurations.arlm, "__file__", str(tmp_path / "arlm" / "__init__.py"))
    assert list(configurations.shipped()) == ["own"]


def test_names_stand_for_files_on_the_command_line_and_inside_a_configuration(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    from arlm.__main__ import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine.yaml").write_text(
        "data: shakespeare\nmodel: {net: gru, optimizer: own.yaml}\ntrainer: long\n"
    )
    (tmp_path / "deep" / "own.yaml").write_text("class_path: torch.optim.Rprop\n")
    options = ["--data=python_docs", "--model.net", "lstm_wide"]
    for more, data, net in ([], "TextFile", "GRU"), (options, "PythonDocs", "LSTM"):
        argv = ["arlm", "fit", "-c", "docs_lstm", "--config=deep/mine.yaml", *more]
        monkeypatch.setattr(sys, "argv", [*argv, "--print_config"])
        with pytest.raises(SystemExit, match="0"):
            main()
        resolved = yaml.safe_load(capsys.readouterr().out)
        assert resolved["data"]["class_path"].endswith(data)
        assert net in str(resolved["model"]["net"])
        assert resolved["model"]["optimizer"]["class_path"] == "torch.optim.Rprop"


def test_every_processor_has_a_fragment() -> None:
    found = {p.stem: yaml.safe_load(p.read_text()) for p in (CONFIGS / "sampler").glob("*.yaml")}
    assert set(found) == {"notes", *all_processors()}
    zero = torch.zeros(1).long()
    history = History(torch.zeros(1, 0).long(), zero, zero, Spec(3, (1,), eos_id=2), zero)
    for entry in (entry for each in found.values() for entry in each["processors"]):
        processor = built(entry)
        assert isinstance(processor, LogitsProcessor)
        if isinstance(processor, Constraint):
            pytest.importorskip("llguidance")
            processor = processor.bind(TextDomain(CharacterTokenizer("012")))
        memory = processor.init(1, zero.device) if isinstance(processor, MemoryProcessor) else None
        assert apply(processor, torch.zeros(1, 3), history, memory).shape == (1, 3)


def built(entry: Any) -> Any:
    """The object that a fragment describes; other values as they are."""
    if not isinstance(entry, dict) or "class_path" not in entry:
        return entry
    module, _, name = entry["class_path"].rpartition(".")
    arguments = {key: built(value) for key, value in entry.get("init_args", {}).items()}
    return getattr(sys.modules[module], name)(**arguments)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text/ptb_lstm_small", {"lr": 1.0, "weight_decay": 0.0}),
        ("text/study_transformer", {"lr": 0.02, "weight_decay": 0.1, "betas": [0.9, 0.95]}),
    ],
)
def test_an_optimizer_takes_nothing_over_from_the_default(
    name: str, expected: dict, monkeypatch, capsys
) -> None:
    # jsonargparse keeps arguments of a replaced class that the new class has too
    from arlm.__main__ import main

    config = str(CONFIGS / f"{name}.yaml")
    monkeypatch.setattr(sys, "argv", ["arlm", "fit", "--config", config, "--print_config"])
    with pytest.raises(SystemExit, match="0"):
        main()
    resolved = yaml.safe_load(capsys.readouterr().out)["model"]["optimizer"]["init_args"]
    assert {key: resolved[key] for key in expected} == expected


def test_trainer_defaults_do_not_lean_on_extras() -> None:
    from pytorch_lightning.loggers import CSVLogger

    from arlm.training.run_folder import RunLogger

    assert TRAINER_DEFAULTS["logger"]["class_path"] == f"{RunLogger.__module__}.RunLogger"
    assert issubclass(RunLogger, CSVLogger)
