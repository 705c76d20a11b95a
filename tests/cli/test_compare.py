"""`arlm compare`: equal tokens are required, paired intervals cover, the page is self-contained."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, run_arlm

from arlm.checkpoints.describe import entry_checksum
from arlm.cli.compare import quality
from arlm.evaluation.paired import by_bins, paired_difference
from arlm.inference.measures import timed
from arlm.reports.charts import line_chart, merged
from arlm.reports.comparison import Line, lines, text_table
from arlm.reports.masked_view import BAG_OF_WORDS, MaskedView
from arlm.reports.view import SHOWN_TOKENS

SHORT = [
    *("--trainer.max_epochs", "-1", "--trainer.check_val_every_n_epoch", "null"),
    *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2", "--samples.n", "1"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a transformer in windows, an LSTM in streams, two seeds, another text, and one of images."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "other.txt").write_text("an entirely different text. " * 200)
    streams = ["--data.batching", "continuous"]
    other = ["--data", "datamodules.text_file.TextFile", "--data.path", "other.txt"]
    wanted = {
        "gpt": ["text/docs_transformer"],
        "lstm": ["text/docs_lstm", *streams],
        "lstm1": ["text/docs_lstm", *streams, "--seed_everything", "1"],
        "other": ["text/docs_lstm", *other, "--data.length", "32"],
        "digits": ["images/digits_pixelcnn"],
    }
    for name, (config, *more) in wanted.items():
        path = str(ROOT / "configs" / f"{config}.yaml")
        logger = ["--trainer.logger.init_args.name", name]
        done = run_arlm("fit", "--config", path, *more, *SHORT, *logger, folder=folder)
        assert done.code == 0, done.err
    return folder


def test_table_and_page(runs: Path) -> None:
    names = ["runs/gpt", "lstm=runs/lstm,runs/lstm1"]
    done = run_arlm("compare", *names, "--out", "page.html", folder=runs)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines()[:-1])) <= 100
    heads, *rows = [re.split(r"  +", line) for line in done.out.splitlines()[1:-1]]
    assert heads == ["", "gpt", "lstm"]
    table = {name: cells for name, *cells in rows}
    assert table["context"] == [
        "windows of 128, stride 64",
        "carried state, 8 streams, overlap 256",
    ]
    assert table["seeds"] == ["1", "2"]
    assert table["trained tokens"][0] == "4,096"
    assert sorted(cell == "best" for cell in table["nats above the best"]) == [False, True]
    assert "word ppl" not in table  # of a network that reads characters
    page = (runs / "page.html").read_text()
    values = [float(cell.split()[0].strip("*")) for cell in table["nll"]]
    better = values.index(min(values))
    assert table["nll"][better].endswith("*")
    assert not table["nll"][1 - better].endswith("*")
    assert f'<td class="best">{table["nll"][better].removesuffix("*")}</td>' in page
    assert page.count("<svg") == 4
    assert (
        page.count("<b") - page.count("<body") >= 3 * SHOWN_TOKENS
    )  # surprise twice, and who is better
    assert "arlm compare runs/gpt lstm=runs/lstm,runs/lstm1 --out page.html" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page), "the page must need nothing else"
    assert not re.search(r"url\((?!#)", page)


def test_figures_are_those_of_evaluate(runs: Path) -> None:
    for run in ("gpt", "lstm"):
        alone = json.loads(run_arlm("evaluate", f"runs/{run}", "--json", folder=runs).out)
        (figures,) = alone["models"].values()
        done = run_arlm("compare", f"runs/{run}", "--json", folder=runs)
        (model,) = json.loads(done.out)["models"]
        assert model["tokens"] == alone["tokens"]
        assert model["nll"] == pytest.approx(figures["nll"], abs=1e-6)
        assert model["bits_per_byte"] == pytest.approx(figures["bits_per_byte"], abs=1e-6)


@pytest.mark.parametrize(
    ("init_args", "contexts"),
    [
        ("", ["windows of 128, stride 64", "carried state, 8 streams, overlap 256"]),
        ("init_args: {length: 64}", ["windows of 64, stride 32"] * 2),
    ],
    ids=["each run keeps its batching", "the file chooses"],
)
def test_other_data_for_all(init_args: str, contexts: list[str], runs: Path) -> None:
    (runs / "other.yaml").write_text(f"class_path: PythonDocs\n{init_args}\n")
    names = ["runs/gpt", "runs/lstm"]
    done = run_arlm("compare", *names, "--data", "other.yaml", "--split", "val", folder=runs)
    assert done.code == 0, done.err
    rows = [re.split(r"  +", line) for line in done.out.splitlines()]
    assert [cells for name, *cells in rows if name == "context"] == [contexts]


def test_images(runs: Path) -> None:
    done = run_arlm("compare", "runs/digits", "--out", "digits.html", folder=runs)
    assert done.code == 0, done.err
    assert "bits/dim" in done.out
    assert 'src="data:image/png;base64' in (runs / "digits.html").read_text()


def test_page_in_a_browser_is_well_formed(runs: Path) -> None:
    from html.parser import HTMLParser

    run_arlm("compare", "runs/gpt", "--out", "one.html", folder=runs)
    stack: list[str] = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag: str, attrs) -> None:
            if tag not in ("meta", "link", "img", "path", "use", "rect", "br"):
                stack.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if stack and tag == stack[-1]:
                stack.pop()
            elif tag in stack:
                raise AssertionError(f"{tag} closes before {stack[-1]}")

    Balanced().feed((runs / "one.html").read_text())
    assert stack == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/gpt", "runs/other"], "'runs/gpt' and 'runs/other' cannot be compared: they score"),
        (["runs/gpt", "runs/digits"], "cannot be compared"),
        (["runs/gpt", "runs/gpt"], "runs: two are called 'gpt'; write NAME=runs/gpt"),
        (["both=runs/gpt,runs/lstm"], "'both' mixes networks"),
        (["none="], "'none' names no run"),
        (["runs/missing"], "does not exist"),
        (["runs/gpt", "--data", "nothing.yaml"], "--data: 'nothing.yaml' is neither a data file"),
        (["runs/gpt", "--data", "other.txt"], "names no class_path"),
        (["runs/gpt", "--out", "other.txt/page.html"], "other.txt"),
    ],
)
def test_bad_input_is_one_line(runs: Path, arguments: list[str], message: str) -> None:
    done = run_arlm("compare", *arguments, folder=runs)
    assert message in done.error()


def test_runs_whose_data_changed_are_refused_with_the_position(runs: Path) -> None:
    copy = runs / "changed"
    shutil.copytree(runs / "runs" / "other", copy)
    text = (runs / "other.txt").read_text()
    for path in copy.rglob("best.ckpt"):
        contents = torch.load(path, weights_only=True)
        (runs / "twin.txt").write_text(
            text[:-30] + text[-30:].upper().lower().replace("text", "tent")
        )
        entry = contents["arlm"]
        entry["data"] = entry["data"].replace("other.txt", "twin.txt")
        entry["checksum"] = entry_checksum(entry)
        torch.save(contents, path)
    done = run_arlm("compare", "runs/other", "changed", folder=runs)
    assert re.search(r"at position \d+ they read the token \d+ and \d+", done.error())


def test_intervals_cover_the_truth() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for trial in range(100):
        steps = random.normal(0.1, 1, 4000).reshape(-1, 4).repeat(4, axis=0).flatten()
        difference = torch.from_numpy(steps)  # neighbours depend on one another
        mean, low, high = paired_difference(difference, torch.zeros(len(difference)), seed=trial)
        assert low < mean < high
        inside += low <= 0.1 <= high
    assert 88 <= inside <= 100


def test_identical_nats_differ_by_nothing() -> None:
    nats = torch.rand(1000).double()
    assert paired_difference(nats, nats) == (0, 0, 0)


def test_bins() -> None:
    values, keys = torch.tensor([1.0, 2.0, 3.0, 5.0]), torch.tensor([0, 1, 1, 7])
    assert by_bins(values, keys, [0, 1, 2, 4]) == [(0, 1.0, 0.25), (1, 2.5, 0.5), (4, 5.0, 0.25)]


def test_a_wide_table_is_cut_into_blocks() -> None:
    names = [f"model {i}" for i in range(5)]
    table = [Line("nll", [f"{i}.0000" for i in range(5)], [i == 0 for i in range(5)])]
    assert text_table(names, table).splitlines() == [
        "     model 0  model 1  model 2  model 3  model 4",
        "nll  0.0000*  1.0000   2.0000   3.0000   4.0000",
    ]
    blocks = text_table(names, table, width=25).split("\n\n")
    assert blocks[1] == "     model 2  model 3\nnll  2.0000   3.0000"
    assert len(blocks) == 3


def test_bands_are_over_the_seeds_where_all_have_points() -> None:
    series = merged(0, "m", [[(1, 2.0), (3, 4.0), (9, 9.0)], [(2, 1.0), (4, 3.0)]])
    assert series is not None
    assert series.x == [3]
    assert series.ys == [[4.0], [2.0]]
    assert merged(0, "m", [[(1, 2.0)], []]) is None
    assert line_chart([None], "x", "y") is None
    two = merged(1, "m", [[(1, 2.0), (3, 4.0)], [(1, 1.0), (3, 3.0)]])
    chart = line_chart([two], "x", "y")
    assert chart is not None
    assert "fill: var(--c1); fill-opacity: 0.2" in chart
    assert "#0c0c" not in chart
    assert ">x</text>" in chart


def test_the_first_call_is_not_timed() -> None:
    durations = iter([0.3, 0.02, 0.02, 0.02, 0.02, 0.02])
    result, seconds = timed(lambda: (time.sleep(next(durations)), "drawn")[1])
    assert result == "drawn"
    assert 0.02 <= seconds < 0.2


def test_machine_code_is_timed_whatever_was_drawn_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARLM_NATIVE", raising=False)
    assert timed(lambda: os.environ.get("ARLM_NATIVE"))[0] == "1"
    assert "ARLM_NATIVE" not in os.environ
    monkeypatch.setenv("ARLM_NATIVE", "0")
    assert timed(lambda: os.environ["ARLM_NATIVE"])[0] == "0"
    assert os.environ["ARLM_NATIVE"] == "0"


def test_figures_of_several_titles_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is the mean over the runs, and those of simple models are left out."""
    figures = [
        {
            "masked tokens": {"accuracy": (tokens, 0.0, 1.0)},
            "labels of pairs": {"accuracy": (labels, 0.0, 1.0), "count": 7, "signature": "s"},
            BAG_OF_WORDS: {"accuracy": (0.9, 0.0, 1.0)},
        }
        for tokens, labels in ((0.25, 0.5), (0.5, 0.75))
    ]
    given = iter(figures)
    view = SimpleNamespace(
        items=lambda *_: 0,
        quality=lambda *_: next(given),
        simple_titles=MaskedView.simple_titles,
    )
    monkeypatch.setattr("arlm.reports.view.view_of", lambda domain: view)
    found = quality("one", [("run", (None, None), None, None)] * 2, "val")
    assert found == {
        "masked tokens: accuracy": 0.375,
        "labels of pairs: accuracy": 0.625,
        "labels of pairs: count": 7,
    }
    view.quality = lambda *_: {"classification": {"accuracy": (0.5, 0.4, 0.6)}}
    assert quality("one", [("run", (None, None), None, None)], "val") == {"accuracy": 0.5}
    model: Any = SimpleNamespace(
        quality=found, figures=lambda unit, words: found | {"nll": 1.0, "nll_by_seed": [1.0]}
    )
    rows = {line.name: line.cells for line in lines([model], "byte", 0)}
    assert rows["masked tokens: accuracy"] == ["0.3750"]
    assert rows["labels of pairs: accuracy"] == ["0.6250"]
    assert "accuracy" not in rows
