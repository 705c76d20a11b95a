"""The names of runs: other data or another network gets a name of its own."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from conftest import ROOT, run_arlm

from arlm.cli.run_names import LONGEST, check_name, given_options, may_rename, run_name
from arlm.errors import UserError

DOCS = {
    "data": {"class_path": "d.Docs", "init_args": {"length": 128, "batch_size": 8, "seed": 0}},
    "model": {"net": {"class_path": "n.LSTM", "init_args": {"width": 200, "depth": 1}}},
}


def changed(**options: object) -> dict:
    """DOCS with other values, such as `data_length=64`."""
    copy = {"data": dict(DOCS["data"]), "model": {"net": dict(DOCS["model"]["net"])}}
    for name, value in options.items():
        part, _, key = name.partition("_")
        inner = copy["data"] if part == "data" else copy["model"]["net"]
        inner["init_args"] = inner["init_args"] | {key: value}
    return copy


@pytest.mark.parametrize(
    ("line", "final", "name"),
    [
        ("--config configs/text/docs.yaml", {}, "docs"),
        ("--config=docs", {}, "docs"),
        ("-c=docs.yaml", {}, "docs"),
        ("-c docs.yaml --trainer.max_steps 3 --seed_everything 4 --data.seed 1", {}, "docs"),
        ("--config docs.yaml --data.batch_size 64", {"data_batch_size": 64}, "docs"),
        ("--config docs.yaml --data.length 128 --model.net.width=200", {}, "docs"),
        ("--config docs.yaml --data.length 64", {"data_length": 64}, "docs-length_64"),
        ("--config docs.yaml --data.init_args.length 64", {"data_length": 64}, "docs-length_64"),
        (
            "--model.net.width 64 --config docs.yaml --data.length=64 --data.length 32",
            {"data_length": 32, "net_width": 64},
            "docs-width_64-length_32",
        ),
        ("--config docs.yaml --config other/wide.yaml", {"net_width": 999}, "docs-wide"),
        ("--config docs.yaml --config long.yaml", {}, "docs"),
    ],
)
def test_only_what_changes_network_or_data_is_in_the_name(
    line: str, final: dict, name: str
) -> None:
    assert run_name(given_options(shlex.split(line)), DOCS, changed(**final)) == name


def test_configurations_beside_one_that_is_no_whole_run_are_named() -> None:
    for other in ("docs", "digits"):
        line = f"--config mine.yaml --config configs/{other}.yaml --trainer.max_steps 3"
        assert run_name(given_options(line.split()), None, DOCS) == f"mine-{other}"


def test_names_of_other_classes_and_files() -> None:
    data = {"class_path": "x.Other", "init_args": {"path": "texts/README.md"}}
    other = {"data": data, "model": {"net": {"class_path": "n.GRU"}}}
    line = "--config docs.yaml --data datamodules.text_file.TextFile --data.path texts/README.md"
    assert run_name(given_options(line.split()), DOCS, other) == "docs-TextFile-path_README"
    line = "--config docs.yaml --data configs/data/digits.yaml --model.net configs/model/gru.yaml"
    assert run_name(given_options(line.split()), DOCS, other) == "docs-digits-gru"
    line = "--model.net arlm.adapters.pretrained --model.net.checkpoint runs/docs_lstm"
    assert run_name(given_options(line.split()), None, other) == "pretrained-checkpoint_docs_lstm"
    assert run_name(given_options(["--data.train", "[a/small.de, small.en]"]), None, other) == (
        "train_small.de_small.en"
    )
    assert run_name([], None, other) == "run"
    long = [("config", "docs"), ("model.net.nets", "x" * 300)]
    names = {run_name([*long, ("data.path", end)], None, other) for end in "ab"}
    assert len(names) == 2
    assert all(len(name) == LONGEST for name in names)


def test_the_first_configuration_is_read_alone_only_if_needed() -> None:
    assert not may_rename(given_options(["--config", "a", "--trainer.max_steps", "3"]))
    assert may_rename(given_options(["--config", "a", "--config", "b"]))
    assert may_rename(given_options(["--config", "a", "--model.net.width", "3"]))


@pytest.mark.parametrize("name", ["", " ", "/tmp/x", "../x", "a/../../x"])
def test_bad_names_are_refused(name: str) -> None:
    assert check_name("demo/digits") == "demo/digits"
    with pytest.raises(UserError, match=r"^--run-name: .* is no name; choose letters"):
        check_name(name)


def test_digits_do_not_replace_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, three steps on digits turned runs/docs_transformer into a network of digits."""
    monkeypatch.chdir(tmp_path)
    text = ["--config", ROOT / "configs/text/docs_transformer.yaml", "--model.net.depth", 1]
    text += ["--model.net.width", 8, "--model.net.heads", 2, "--trainer.accelerator", "cpu"]
    short = ["--trainer.max_steps", 1, "--trainer.val_check_interval", 1, "--samples.n", 0]
    short += ["--trainer.limit_val_batches", 1, "--trainer.check_val_every_n_epoch", "null"]
    Path("fox.txt").write_text("the quick brown fox jumps over the lazy dog. " * 80)
    fox = ["--data", "datamodules.text_file.TextFile", "--data.path", "fox.txt"]
    fox += ["--data.length", 16]
    assert run_arlm("fit", *text, *fox, *short).code == 0
    digits = ["--data", "datamodules.digits.Digits"]
    assert run_arlm("fit", *text, *digits, *short).code == 0
    named = "docs_transformer-depth_1-width_8-heads_2"
    found = sorted(path.name for path in Path("runs").iterdir())
    assert found == [f"{named}-Digits", f"{named}-TextFile-path_fox-length_16"]
    # The same, with a common folder: the newest is meant, and the other is named.
    for data in (fox, digits):
        assert run_arlm("fit", *text, *data, *short, "--run-name", "both").code == 0
    done = run_arlm("evaluate", "both")
    assert done.code == 0, done.err
    lines = [line for line in done.err.splitlines() if "best.ckpt" in line]
    assert len(lines) == 1
    assert lines[0].startswith("runs/both/version_1/checkpoints/best.ckpt: step 1, ")
    assert "TransformerLanguageModel on digits, val/nll " in lines[0]
    passed_over = "passed over: runs/both/version_0 (TransformerLanguageModel on fox.txt)"
    assert lines[0].endswith(passed_over)
