"""`translate` takes the options of decoding that `sample` takes, and shows its search as a tree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import Result, run_arlm
from PIL import Image

from arlm.cli import sample
from arlm.cli import translate as translate_verb

LINES = ["Fri, the 3rd of March 2017", "12 MAY in 1944", "on Sunday, '04, AUGUST 21"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run on dates, after which translations are far from certain."""
    folder = tmp_path_factory.mktemp("dates")
    config = ["--config", "dates_attention", "--model.net.width", "16", "--data.pairs", "2000"]
    short = ["--trainer.max_steps", "20", "--samples.n", "0", "--run-name", "dates"]
    done = run_arlm("fit", *config, *short, folder=folder)
    assert done.code == 0, done.err
    (folder / "dates.txt").write_text("\n".join(LINES) + "\n")
    return folder


def translate(run: Path, *arguments: object) -> Result:
    return run_arlm("translate", "runs/dates", "dates.txt", *arguments, folder=run)


def test_the_same_options_have_the_same_help(capsys: pytest.CaptureFixture[str]) -> None:
    sections = []
    for verb in (sample, translate_verb):
        with pytest.raises(SystemExit):
            verb.parse(["--help"])
        text = capsys.readouterr().out
        section = text[text.index("\ndecoding:") :].partition("\n\n")[2].partition("\n\n")[0]
        own = section.partition("  --decoding")[0]  # `sample` has one more, the last one
        sections.append(own.rstrip())
    assert sections[0] == sections[1]
    assert re.findall(r"^  (--[\w-]+)", sections[0], flags=re.M) == [
        *("--temperature", "--top-k", "--top-p", "--greedy", "--processors", "--preset"),
    ]


def test_options_of_decoding_draw_translations(run: Path) -> None:
    searched = translate(run)
    assert translate(run, "--beam", 5, "--length-penalty", 1).out == searched.out
    drawn = translate(run, "--temperature", 0.9, "--top-k", 6, "--top-p", 0.95)
    assert drawn.out == translate(run, "--processors", "temperature=0.9,top_k=6,top_p=0.95").out
    assert drawn.out != searched.out
    assert (
        translate(run, "--temperature", 1).out
        != translate(run, "--temperature", 1, "--seed", 1).out
    )
    assert translate(run, "--greedy").out == translate(run, "--beam", 1).out
    assert translate(run, "--top-k", 1).out == translate(run, "--beam", 1).out


def test_a_preset_is_a_list_of_processors_and_flags_go_over_it(run: Path) -> None:
    def same(preset: list[object], processors: str) -> bool:
        return translate(run, *preset).out == translate(run, "--processors", processors).out

    notes = "notes_penalty=1.2:presence=1.2,top_p=0.9"
    assert same(["--preset", "notes"], notes)
    assert same(["--preset", "notes", "--top-p", 0.5], notes.replace("0.9", "0.5"))
    assert same(
        ["--preset", "llamacpp:top_k=9", "--temperature", 1.5, "--processors", "min_new_tokens=5"],
        "min_new_tokens=5,top_k=9,top_p=0.95,min_p=0.05,temperature=1.5",
    )
    assert same(["--preset", "notes:presence=1", "--greedy"], "notes_penalty=1.2,greedy")
    assert same(["--preset", "openai"], "temperature=1")
    assert not same(["--preset", "notes"], "temperature=1")


@pytest.mark.parametrize("way", [["--beam", 6], ["--temperature", 1.5]])
def test_translations_as_json_are_those_of_the_table(run: Path, way: list[object]) -> None:
    table = translate(run, *way, "--n-best", 3)
    assert translate(run, *way, "-n", 3).out == table.out
    objects = [
        json.loads(line) for line in translate(run, *way, "-n", 3, "--json").out.splitlines()
    ]
    assert [(one["index"], one["source"]) for one in objects] == list(enumerate(LINES))
    rows = [
        f"{one['index'] + 1}\t{each['text']}\t{each['log_prob']:.4f}\t{each['score']:.4f}"
        for one in objects
        for each in one["translations"]
    ]
    assert rows == table.out.splitlines()
    (alone,) = json.loads(translate(run, *way, "--json").out.splitlines()[1])["translations"]
    assert alone["text"] == translate(run, *way).out.splitlines()[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--greedy", "--beam", 5], "--beam: it belongs to the search, but --greedy samples"),
        (
            ["--top-k", 3, "--length-penalty", 1],
            "--length-penalty: it belongs to the search, but --top-k",
        ),
        (["--processors", "min_p=0.1", "--tree", "x.png"], "--tree: it belongs to the search"),
        (
            ["--greedy", "--top-p", 0.5],
            "--greedy: it always takes the likeliest token; omit --top-p",
        ),
        (
            ["--preset", "ollama"],
            "--preset: 'ollama' is unknown; choose from huggingface, llamacpp",
        ),
        (["--preset", "openai", "--top-k", 3], "--top-k: openai has no such option; write it in"),
        (
            ["--preset", "notes:top_p=0.5", "--top-p", 0.3],
            "--preset: notes got top_p twice; give one value",
        ),
        (
            ["--preset", "llamacpp", "--processors", "min_p=0.1"],
            "--processors: min_p is part of the preset llamacpp; omit one of them",
        ),
        (["--preset", "notes", "--beam", 5], "--beam: it belongs to the search, but --preset"),
        (
            ["--processors", "max_new_tokens=1,min_new_tokens=3"],
            "min_new_tokens: it masks all tokens that were left at position 0 of row 0",
        ),
        (["--processors", "logit_bias={999:1}"], "logit_bias: token 999 is out of range; choose 0"),
        (["--temperature", "warm"], "--temperature: 'warm' does not fit; give a number"),
        (
            ["--tree", "x.jpg"],
            "--tree: 'x.jpg' does not end in .png, .html, .htm; write for example 'x.png'",
        ),
        (["--tree", "none/x.png"], "--tree: the folder 'none' of 'x.png' does not exist; make it"),
        (["-n", 6], "--n-best: 6 is out of range; choose 1 to 5"),
    ],
)
def test_options_that_do_not_fit_together(run: Path, arguments: list, message: str) -> None:
    assert message in translate(run, *arguments).error()


def test_the_search_as_a_picture_and_as_a_page(run: Path) -> None:
    done = translate(run, "--tree", "tree.png")
    assert done.out == translate(run).out
    assert done.err.endswith("tree.png\n")
    assert Image.open(run / "tree.png").height > 300 * len(LINES)
    assert translate(run, "--beam", 3, "--json", "--tree", "tree.html").code == 0
    page = (run / "tree.html").read_text()
    found = json.loads(translate(run, "--beam", 3, "-n", 3, "--json").out.splitlines()[0])
    section = page[page.index("<h2>Fri") : page.index("<h2>12 MAY")]
    for each in found["translations"]:
        assert f">{each['score']:.2f}<" in section
    assert "arlm translate runs/dates dates.txt --beam 3 --json --tree tree.html" in page
