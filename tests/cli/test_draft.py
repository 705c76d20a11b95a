"""`arlm sample --draft`: the texts of `--noise gumbel`, in fewer passes; beam search with processors."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from unittest.mock import patch

import pytest
from conftest import Result, run_arlm

from arlm.checkpoints import Loaded
from arlm.cli import drafting
from arlm.errors import UserError

TEXT = "Anna walked to the harbour and came back. Bo walked to the hill and came back. "
DATA = ["--data", "datamodules.text_file.TextFile", "--data.path", "mine.txt"]
SHORT = ["--samples.n", "0", "--data.length", "32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a transformer and an LSTM of bytes, and an LSTM of characters."""
    folder = tmp_path_factory.mktemp("drafts")
    (folder / "mine.txt").write_text(TEXT * 60)
    for name, config, tokenizer, steps in (
        ("gpt", "docs_transformer", "byte", 60),
        ("lstm", "docs_lstm", "byte", 40),
        ("letters", "docs_lstm", "character", 1),
    ):
        given = ["--config", config, *DATA, *SHORT, "--data.tokenizer", tokenizer]
        small = ["--model.net.width", "16", "--run-name", name, "--trainer.max_steps", steps]
        done = run_arlm("fit", *given, *small, folder=folder)
        assert done.code == 0, done.err
    return folder


def sample(folder: Path, *arguments: object) -> Result:
    given = ["runs/gpt", "--precision", 64, "--max-new-tokens", 40, *arguments]
    return run_arlm("sample", *given, folder=folder)


@pytest.mark.parametrize("draft", ["runs/gpt", "runs/lstm", "ngram", "lookup"])
def test_a_draft_changes_no_text(folder: Path, draft: str) -> None:
    options = ["-n", 3, "--json", "--prompt", "Anna ", "--temperature", 0.9]
    plain = sample(folder, *options, "--noise", "gumbel")
    drafted = sample(folder, *options, "--draft", draft, "--draft-tokens", 3)
    assert plain.code == drafted.code == 0, drafted.err
    texts = [
        [json.loads(line)["text"] for line in run.out.splitlines()] for run in (plain, drafted)
    ]
    assert texts[0] == texts[1]
    found = re.search(
        r"draft: (\d+) tokens in (\d+) passes of the network; (.*) of (\d+) proposals accepted",
        drafted.err,
    )
    assert found
    assert int(found[1]) == 120
    if draft == "runs/gpt":
        assert found[3] == "100.0%"
        assert int(found[2]) < 40
    assert "draft:" not in plain.err


def test_streams_slides_and_stops(folder: Path) -> None:
    for options in (["--stream"], ["--stop", "a"], ["--noise", "uniform"]):
        noise = [] if "--noise" in options else ["--noise", "gumbel"]
        plain = sample(folder, *options, *noise)
        drafted = sample(folder, *options, "--draft", "runs/lstm")
        assert plain.out == drafted.out
        assert "draft:" in drafted.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--draft", "runs/letters"], "draft: it has other tokens than the network"),
        (["--draft", "runs/nothing"], "runs/nothing"),
        (["--draft", "lookup", "--draft-tokens", 0], "--draft-tokens: 0 is out of range; choose"),
        (["--draft-tokens", 3], "--draft-tokens: a draft proposes them; give --draft"),
        (["--draft", "lookup", "--beam", 2], "--draft: it draws token by token; omit --beam"),
        (["--beam", 2, "--noise", "gumbel"], "--beam: it searches and draws nothing; omit"),
    ],
)
def test_bad_requests_are_one_line(folder: Path, arguments: list, message: str) -> None:
    assert message in sample(folder, *arguments).error()


def test_an_adapter_is_not_for_the_draft() -> None:
    opened: list[str | None] = []

    def open_network(options: argparse.Namespace, run: str) -> Loaded:
        opened.append(options.adapter)
        raise UserError("enough")

    options = argparse.Namespace(draft="runs/small", draft_tokens=None, adapter="mine.ckpt")
    with patch.object(drafting, "open_network", open_network), pytest.raises(UserError):
        drafting.open_draft(options, None)  # type: ignore[arg-type]
    assert opened == [None]
    assert options.adapter == "mine.ckpt"


def test_beam_search_takes_processors(folder: Path) -> None:
    few = ["--max-new-tokens", 20]  # within the window
    greedy = sample(folder, *few, "--greedy", "--processors", "frequency_penalty=2")
    searched = sample(folder, *few, "--beam", 1, "--processors", "frequency_penalty=2")
    assert searched.code == 0, searched.err
    assert searched.out == greedy.out
    assert sample(folder, *few, "--beam", 1).out != searched.out
    one = sample(folder, *few, "--beam", 3, "-n", 3, "--top-k", 1, "--json")
    assert len(one.out.splitlines()) == 1  # top-k 1 leaves one text
