"""Masked text on the command line: fit, fill, evaluate, compare; other text by --data; what is refused."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import run_arlm
from small_runs import write_text_and_image

from arlm import checkpoints
from arlm.cli.evaluate import named_figures
from arlm.models.bert import BERT
from datamodules.masked_text import MaskedText
from datamodules.text_file import TextFile

TEXT = "the cat sat on the mat and the dog ran to the cat. " * 60
SHORT = ["--trainer.max_steps", "4", "--trainer.val_check_interval", "2", "--samples.n", "1"]


def write_masked(folder: Path, name: str, **options) -> None:
    """A checkpoint of a BERT that is not trained, NAME.ckpt, of masked rows of mine.txt."""
    torch.manual_seed(0)
    (folder / "mine.txt").write_text(TEXT)
    data = MaskedText(
        TextFile(str(folder / "mine.txt"), length=16, tokenizer="character"), **options
    )
    checkpoints.save(folder / f"{name}.ckpt", BERT(data.spec, width=8, depth=1, heads=2), data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masked")
    write_text_and_image(folder, TEXT)
    write_masked(folder, "masked")
    write_masked(folder, "bound", bound=True)
    write_masked(folder, "pairs", pairs="order")
    (folder / "other.txt").write_text("a rat met a cat on the road. " * 60)
    (folder / "other.yaml").write_text(
        "class_path: TextFile\ninit_args: {path: other.txt, tokenizer: byte}\n"
    )
    (folder / "masked.yaml").write_text(
        "class_path: MaskedText\ninit_args: {text: other.yaml, rate: 0.5}\n"
    )
    return folder


@pytest.mark.parametrize("name", ["masked", "text", "pairs", "bound"])
def test_one_gap_is_filled_exactly(folder: Path, name: str) -> None:
    done = run_arlm("fill", f"{name}.ckpt", "the c[MASK]t sat", "-n", 100, "--json", folder=folder)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["probability"].startswith("exact")
    total = sum(one["probability"] for one in found["fillings"])
    letters = [one["gaps"][0] for one in found["fillings"]]
    if name != "pairs":  # whose network knows labels and a separator, too
        assert total == pytest.approx(1, abs=1e-5)
        assert len(letters) == len(set(TEXT))
    for one in found["fillings"]:
        assert (
            one["text"].replace("\n[SEP]\n", "") == f"the c{one['gaps'][0]}t sat" or name == "pairs"
        )
        assert one["probability"] == pytest.approx(math.exp(-one["nats"]))


def test_several_gaps_and_the_table(folder: Path) -> None:
    options = ["--order", "confident", "--per-pass", 2, "--draws", 9, "-n", 3]
    text = "th[MASK] c[MASK]t"
    done = run_arlm("fill", "masked.ckpt", text, *options, folder=folder)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("probability of 9 draws")
    assert len(lines) == 5
    assert "[MASK]" not in done.out
    causal = run_arlm("fill", "text.ckpt", text, "-n", 2, folder=folder)
    assert causal.code == 0, causal.err
    assert "after the best 16 texts" in causal.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["masked.ckpt", "the cat"], "TEXT: it has no gap; write [MASK]"),
        (["text.ckpt", "the cat"], "TEXT: it has no gap; write [MASK]"),
        (["masked.ckpt", "[MASK]" + "a" * 40], "TEXT: it has 41 tokens, but the network takes 16"),
        (["text.ckpt", "[MASK]" + "a" * 40], "TEXT: it has 41 tokens, but the network takes 16"),
        (["masked.ckpt", "ü[MASK]"], "TEXT: "),
        (["text.ckpt", "ü[MASK]"], "TEXT: "),
        (["image.ckpt", "[MASK]"], "`arlm fill` does not do"),
        (["text.ckpt", "a[MASK]", "--order", "random"], "--order: 'random' given"),
        (["masked.ckpt", "a[MASK]", "--per-pass", 0], "--per-pass: 0"),
        (["masked.ckpt", "a[MASK]", "--draws", 0], "--draws: 0"),
        (["masked.ckpt", "a[MASK]", "-n", 0], "-n: 0"),
    ],
)
def test_what_cannot_be_filled_is_refused(folder: Path, arguments: list, message: str) -> None:
    assert message in run_arlm("fill", *arguments, folder=folder).error()


def test_other_verbs_name_fill(folder: Path) -> None:
    for verb, *more in (["sample"], ["score", "mine.txt"], ["next", "--prompt", "a"]):
        error = run_arlm(verb, "masked.ckpt", *more, folder=folder).error()
        assert "use `arlm evaluate` or `arlm fill`" in error


def test_evaluate_has_no_bits_per_byte_of_masked_tokens(folder: Path) -> None:
    done = run_arlm("evaluate", "masked.ckpt", "--baselines", "--json", folder=folder)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert list(found["models"]) == ["BERT", "unigram", "two-sided trigram"]
    assert "bits_per_byte" not in done.out
    for name in found["models"]:
        assert list(found["models"][name]) == ["nll", "ppl", "bits_per_masked_token"]
        title = "masked tokens" if name == "BERT" else f"masked tokens, {name}"
        assert 0 <= found[title]["accuracy"][0] <= 1
    counts = found["models"]["two-sided trigram"]["nll"], found["models"]["unigram"]["nll"]
    assert counts[0] < counts[1]


def test_the_bound_has_a_name_of_its_own_and_is_above_the_nats_of_a_uniform_network(
    folder: Path,
) -> None:
    done = run_arlm("evaluate", "bound.ckpt", "--json", folder=folder)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    figures = found["models"]["BERT"]
    assert list(figures) == ["nll", "ppl", "bits_per_byte_bound"]
    held_out = len(TEXT) - int(len(TEXT) * 0.9) - (len(TEXT) - int(len(TEXT) * 0.9)) // 2
    assert found["tokens"] == found["byte_bounds"] == held_out
    assert figures["nll"] == pytest.approx(figures["bits_per_byte_bound"] * math.log(2))


def test_pairs_are_evaluated_beside_a_bag_of_words(folder: Path) -> None:
    done = run_arlm("evaluate", "pairs.ckpt", folder=folder)
    assert done.code == 0, done.err
    assert "labels of pairs: accuracy" in done.out
    assert "labels of pairs, bag of words: accuracy" in done.out


def test_other_text_is_masked_like_the_run_s_own(folder: Path) -> None:
    own, text, masked = (
        json.loads(run_arlm("evaluate", "masked.ckpt", *more, "--json", folder=folder).out)
        for more in ([], ["--data", "other.yaml"], ["--data", "masked.yaml"])
    )
    assert own["data"]["protocol"] == text["data"]["protocol"]
    assert text["data"]["name"] == "other.txt"
    assert "50% of the tokens masked" in masked["data"]["protocol"]
    assert masked["tokens"] > 2 * text["tokens"]


@pytest.mark.parametrize(
    "content",
    [
        "{text: missing.yaml}",
        "{text: 3}",
        "{rate: 0.1}",
        "{text: self.yaml}",
        "{text: {class_path: TextFile}}",
        "{text: {class_path: TextFile, init_args: 3}}",
        "{text: {init_args: {path: other.txt}}}",
    ],
)
def test_a_file_of_masked_text_without_a_text_is_refused(folder: Path, content: str) -> None:
    (folder / "self.yaml").write_text(f"class_path: MaskedText\ninit_args: {content}\n")
    error = run_arlm("evaluate", "masked.ckpt", "--data", "self.yaml", folder=folder).error()
    assert "--data: '" in error


def test_fit_validates_compares_and_resumes(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(TEXT)
    config = ["--config", "docs_bert", *SHORT, "--trainer.accelerator", "cpu"]
    config += ["--data.text", "TextFile", "--data.text.path", "mine.txt"]
    config += ["--data.text.length", 16, "--model.net.width", 8]
    first = run_arlm("fit", *config, "--run-name", "a", folder=tmp_path)
    assert first.code == 0, first.err
    assert "val/bits_per_masked_token" in first.err
    assert "arlm fill runs/a" in first.err  # what to do next
    assert "bits_per_byte" not in first.err
    resumed = run_arlm(
        "fit", *config, "--run-name", "a", "--trainer.max_steps", 6, "--resume", folder=tmp_path
    )
    assert resumed.code == 0, resumed.err
    lstm = ["--model.net", "arlm.models.bilstm.BiLSTM"]
    second = run_arlm("fit", *config, *lstm, "--run-name", "b", folder=tmp_path)
    assert second.code == 0, second.err
    done = run_arlm("compare", "runs/a", "runs/b", "--out", "page.html", folder=tmp_path)
    assert done.code == 0, done.err
    assert "bits/masked_token" in done.out
    assert "bits/byte" not in done.out
    assert "[MASK]" in (tmp_path / "page.html").read_text()
    samples = next((tmp_path / "runs/a").rglob("samples/*.txt")).read_text()
    assert all(f"\n{sign} " in samples for sign in "?>=")


def test_counts_of_both_sides_are_fitted_by_fit(tmp_path: Path) -> None:
    done = run_arlm(
        *("fit", "--config", "docs_two_sided", "--samples.n", "1"),
        *("--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "4"),
        folder=tmp_path,
    )
    assert done.code == 0, done.err
    filled = run_arlm("fill", "runs/docs_two_sided", "The im[MASK]ort", "-n", 2, folder=tmp_path)
    assert filled.code == 0, filled.err
    assert "1" in filled.out


@pytest.mark.parametrize(
    "options",
    [["--data.text", "shakespeare"], ["--config", "mine.yaml"], ["--data", "mine_data.yaml"]],
)
def test_the_text_within_is_named_like_other_data(
    options: list[str], tmp_path: Path, capsys, monkeypatch
) -> None:
    from arlm.__main__ import main

    monkeypatch.chdir(tmp_path)
    block = "{class_path: MaskedText, init_args: {text: shakespeare}}"
    (tmp_path / "mine.yaml").write_text(f"data: {block}\n")
    (tmp_path / "mine_data.yaml").write_text(block)
    argv = ["arlm", "fit", "--config", "docs_bert", *options, "--print_config"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match="0"):
        main()
    data = yaml.safe_load(capsys.readouterr().out)["data"]
    assert data["class_path"] == "datamodules.masked_text.MaskedText"
    assert data["init_args"]["text"]["init_args"]["path"].startswith("tinyshakespeare")


def test_figures_are_printed_with_names_and_fitting_digits() -> None:
    nats = {"tokens": 512, "nats": 2.34567, "gain": 0.00214, "low": 0.00123, "high": 0.00312}
    assert named_figures(nats) == [
        *("tokens 512", "nats 2.3457", "gain 0.0021", "low 0.0012", "high 0.0031")
    ]
    bleu = {"bleu": 23.456, "low": 1.234, "answers": 300, "signature": "nrefs:1"}
    assert named_figures(bleu) == ["bleu 23.46", "low 1.23", "answers 300", "nrefs:1"]
    assert named_figures({"f1": (0.5, 0.25, 0.75)}) == ["f1 0.5000 [0.2500, 0.7500]"]
