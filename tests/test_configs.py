"""Every shipped YAML is instantiated and runs one batch; every run begins with its launch line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT

from arlm.cli.trainer import TRAINER_DEFAULTS
from arlm.sampling.processors import LogitsProcessor, all_processors

CONFIGS = ROOT / "configs"
RUNS = sorted(CONFIGS.glob("*.yaml"))
IN_RUNS = "".join(path.read_text() for path in RUNS)
# A network that a run names is tried there.
FRAGMENTS = [
    path
    for path in sorted(CONFIGS.glob("*/*.yaml"))
    if (path.parent.name != "model" or f"model/{path.name}" not in IN_RUNS)
    and path.stem != "llama"  # test_layouts.py, without its 27 GB
]
RGB = ["--model.net.width", "33", "--model.net.head_width", "33"]  # three channel groups
LARGE_RUNS = ("mnist", "cifar10", "wikitext", "shakespeare_nanogpt_gpu")
LARGE = ["--data.batch_size", "2"]  # whatever the size of a paper's batch


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
        elif stem in ("fashion_mnist", "kmnist"):
            folder = request.getfixturevalue("data_dir")
            if not any((folder / name).is_dir() for name in ("FashionMNIST", "KMNIST")):
                pytest.skip("needs FashionMNIST and KMNIST in ARLM_DATA_DIR")
        elif stem.startswith(("ptb", "enwik8", "text8")) or (
            stem.startswith("wikitext") and ("valtest" not in stem)
        ):
            monkeypatch.setenv("ARLM_DATA_DIR", str(request.getfixturevalue("corpora")))
        elif "mnist" in stem or stem.startswith(("shakespeare", "wikitext", "study", "multi30k")):
            monkeypatch.setenv("ARLM_DATA_DIR", str(request.getfixturevalue("data_dir")))
    monkeypatch.chdir(tmp_path)
    fast = ["--trainer.fast_dev_run", "1", "--trainer.accelerator", "cpu", "--samples.n", "1"]
    monkeypatch.setattr(sys, "argv", ["arlm", "fit", *arguments, *fast])
    assert main() == 0


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_run(path: Path, monkeypatch, tmp_path, request, capsys) -> None:
    small = LARGE if path.stem.startswith(LARGE_RUNS) else []
    one_batch(monkeypatch, tmp_path, request, "--config", str(path), *small)
    assert "val/bits_per" in capsys.readouterr().err


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_fragment(path: Path, monkeypatch, tmp_path, request) -> None:
    options = {
        "data": ["--data", str(path)],
        "model": ["--model.net", str(path)],
        "optimizer": ["--model.optimizer", str(path)],
        "sampler": ["--model.sampler", str(path)],
    }[path.parent.name]
    content = path.read_text()
    text = "datamodules.text" in content or "datamodules.python" in content
    text |= any(kind in content for kind in ("RNN", "GRU", "LSTM", "NGram", "Transformer"))
    text &= "RowLSTM" not in content
    text &= "imagegpt" not in path.stem
    pairs = any(kind in content for kind in ("Seq2Seq", "multi30k", "dates"))
    base = "dates_attention" if pairs else "docs_lstm" if text else "digits_pixelcnn"
    config = str(CONFIGS / f"{base}.yaml")
    small = LARGE if not (text or pairs) or path.stem == "gpt2" else []
    if "shared: true" in content:
        options += ["--model.net.shared", "false"]  # the dates have two tokenizers
    if path.stem in ("cifar10", "cifar10_labels", "image_folder"):
        small = LARGE + RGB
    one_batch(monkeypatch, tmp_path, request, "--config", config, *options, *small)


@pytest.mark.parametrize("path", RUNS, ids=lambda p: p.stem)
def test_run_is_short_and_begins_with_launch_line_time_and_result(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert 6 <= len(lines) <= 12
    assert lines[0] == f"# python -m arlm fit --config configs/{path.name}"
    assert lines[1].startswith("# ")
    assert "2 cores" in lines[1]
    assert "bits/" in lines[1]


def test_every_processor_has_a_fragment() -> None:
    assert {p.stem for p in (CONFIGS / "sampler").glob("*.yaml")} == set(all_processors())
    for path in (CONFIGS / "sampler").glob("*.yaml"):
        (entry,) = yaml.safe_load(path.read_text())["processors"]
        module, _, name = entry["class_path"].rpartition(".")
        processor = getattr(sys.modules[module], name)(**entry.get("init_args", {}))
        assert isinstance(processor, LogitsProcessor)
        assert processor(torch.zeros(1, 3), torch.zeros(1, 0)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ptb_lstm_small", {"lr": 1.0, "weight_decay": 0.0}),
        ("study_transformer", {"lr": 0.02, "weight_decay": 0.1, "betas": [0.9, 0.95]}),
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
    assert TRAINER_DEFAULTS["logger"]["class_path"].endswith("CSVLogger")
