"""`--regex`, `--json-schema` and `--grammar` of `sample` and `translate`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import Result, run_arlm

from arlm.domains import ImageDomain
from arlm.errors import UserError
from arlm.reports.view import view_of

pytest.importorskip("llguidance", reason="needs llguidance, of the extra [constrained]")
SHORT = ["--trainer.max_steps", "2", "--samples.n", "0"]
SCHEMA = '{"type": "object", "properties": {"n": {"type": "integer", "maximum": 150}}, "required": ["n"], "additionalProperties": false}'
DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with short runs on texts and on dates."""
    folder = tmp_path_factory.mktemp("constrained")
    text = ["docs_lstm", "--model.net.width", "8", "--run-name", "text"]
    dates = ["dates_attention", "--model.net.width", "8", "--data.pairs", "2000"]
    for options in (text, [*dates, "--run-name", "dates"]):
        done = run_arlm("fit", "--config", *options, *SHORT, folder=folder)
        assert done.code == 0, done.err
    (folder / "dates.txt").write_text("Fri, the 3rd of March 2017\n12 MAY in 1944\n")
    (folder / "schema.json").write_text(SCHEMA)
    (folder / "list.lark").write_text(
        'start: item ("," item)~1..3\nitem: /[a-z]{1,3}/ | "[" item "]"\n'
    )
    return folder


def sample(runs: Path, *arguments: object) -> Result:
    return run_arlm("sample", "runs/text", *arguments, folder=runs)


def test_texts_match_and_end(runs: Path) -> None:
    done = sample(runs, "--regex", "[A-Z][a-z]{2,5}", "-n", 5, "--prompt", "The ", "--json")
    texts = [json.loads(line) for line in done.out.splitlines()]
    assert len(texts) == 5
    for one in texts:
        assert re.fullmatch("The [A-Z][a-z]{2,5}", one["text"])
        assert one["tokens"] == len(one["text"]) - 4 <= 6
    streamed = sample(runs, "--regex", "[A-Z][a-z]{2,5}", "--prompt", "The ", "--stream")
    assert streamed.out == texts[0]["text"] + "\n"
    (parallel,) = sample(
        runs, "--regex", "[A-Z][a-z]{5}", "--decoding", "fixed_point", "--max-new-tokens", 6
    ).out.splitlines()
    assert re.fullmatch("[A-Z][a-z]{5}", parallel)
    for way in (["--beam", 3], ["--decoding", "fixed_point"]):
        (found,) = sample(runs, "--regex", "[A-Z][a-z]{2}", *way, "--json").out.splitlines()
        assert re.fullmatch("[A-Z][a-z]{2}", json.loads(found)["text"])
        assert (json.loads(found)["tokens"], json.loads(found)["finish"]) == (3, "constraint")


def test_json_and_grammars(runs: Path) -> None:
    for given in (SCHEMA, "schema.json"):
        texts = sample(runs, "--json-schema", given, "-n", 3).out.split("\n---\n")
        assert all(json.loads(text)["n"] <= 150 for text in texts)
        assert len(texts) == 3
    listed = sample(runs, "--grammar", "list.lark", "-n", 3).out.strip().split("\n---\n")
    for text in listed:
        assert re.fullmatch(r"[a-z\[\]]+(,[a-z\[\]]+){1,3}", text)
        assert text.count("[") == text.count("]")


def test_translations_are_dates(runs: Path) -> None:
    given = ["translate", "runs/dates", "dates.txt", "--regex", DATE]
    lines = run_arlm(*given, folder=runs).out.splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(DATE, line) for line in lines)
    same = run_arlm(*given, "--processors", "temperature=1", folder=runs)
    assert same.out.splitlines() == lines
    assert (
        "--beam: it belongs to the search, but --regex"
        in run_arlm(*given, "--beam", 3, folder=runs).error()
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--regex", "["], "regex: at 1(8): invalid regex"),
        (["--regex", "日+"], "regex: no token of the tokenizer begins a text that fits it"),
        (
            ["--regex", "a日"],
            "constraint: it masks all tokens that were left at position 1 of row 0; the tokenizer cannot",
        ),
        (["--json-schema", "nowhere.json"], "json_schema: cannot read 'nowhere.json'"),
        (["--grammar", "start: x"], "grammar: at 1(8): unknown name"),
        (
            ["--regex", "a", "--grammar", "b"],
            "--grammar: the text has one language; omit it, or --regex",
        ),
        (["--regex", ""], "--regex: its value is empty"),
        (["--processors", "constraint"], "constraint: none given"),
    ],
)
def test_bad_languages_are_refused_in_one_line(runs: Path, arguments: list, message: str) -> None:
    assert message in sample(runs, *arguments).error()


def test_pictures_refuse_them() -> None:
    view = view_of(ImageDomain(4, 4, 4))
    for option in ("regex", "json_schema", "grammar"):
        name = "--" + option.replace("_", "-")
        with pytest.raises(UserError, match=f"{name}: 'x' given, but the checkpoint draws images"):
            view.check_options({option: "x"})


def test_samples_of_a_run_refuse_what_ends_rows(runs: Path) -> None:
    done = run_arlm(
        *("fit", "--config", "docs_lstm", "--model.sampler", "constraint", *SHORT), folder=runs
    )
    assert "model.sampler: constraint ends rows, but the samples of a run" in done.error()
