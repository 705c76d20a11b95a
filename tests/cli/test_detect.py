"""`sample --watermark` marks texts, and `detect` finds the mark with the same spelling."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, run_arlm

from arlm import checkpoints
from arlm.models.pixelcnn import PixelCNN
from arlm.models.transformer import TransformerLanguageModel
from arlm.tokenizers import BPETokenizer
from datamodules.digits import Digits
from datamodules.python_docs import PythonDocs
from datamodules.text_file import TextFile

WATERMARKS = [
    "gumbel:key=7",
    "green_list=3:gamma=0.25:key=7",
    "synth_id:key=7:width=3",
    "synth_id=7:weighted=true",
]
LETTERS = "abcdefghijklmnopqrstuvwxyz ,.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks of letters and of images that were not trained."""
    folder = tmp_path_factory.mktemp("detect")
    (folder / "letters.txt").write_text(LETTERS * 40)
    text = TextFile(str(folder / "letters.txt"), tokenizer="character", length=120)
    digits = Digits()
    for name, net, data in (
        ("text", TransformerLanguageModel(text.spec, width=8, heads=2, depth=1), text),
        ("image", PixelCNN(digits.spec, width=4, depth=1), digits),
    ):
        checkpoints.save(folder / f"{name}.ckpt", net, data)
    return folder


def arlm(folder: Path, *arguments: object) -> Result:
    return run_arlm(*arguments, folder=folder)


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


@pytest.mark.parametrize("watermark", WATERMARKS)
def test_what_sample_marks_detect_finds(folder: Path, watermark: str) -> None:
    drawn = arlm(folder, "sample", "text.ckpt", "-n", 3, "--watermark", watermark, "--json")
    (folder / "marked.jsonl").write_text(drawn.out)
    name = watermark.partition("=")[0].partition(":")[0]
    assert {one["watermark"] for one in objects(drawn)} == {name}
    assert watermark not in drawn.out  # nor its key
    asked = ("detect", "text.ckpt", "marked.jsonl", "--json", "--watermark")
    found = objects(arlm(folder, *asked, watermark))
    assert [one["file"] for one in found] == [f"marked.jsonl:{line}" for line in (1, 2, 3)]
    for one in found:
        assert list(one) == [
            *("file", "watermark", "measures", "tokens", "statistic", "expected", "z", "p"),
        ]
        assert one["z"] > 4
        assert one["p"] < 1e-6
    others = objects(arlm(folder, *asked, watermark.replace("7", "8")))
    assert min(one["p"] for one in others) > 1e-4


def test_a_prompt_is_not_scored(folder: Path) -> None:
    prompt, mark = "the quick brown fox jumps over a ", ("--watermark", "gumbel:key=7")
    drawn = arlm(folder, "sample", "text.ckpt", "--prompt", prompt, *mark, "--max-new-tokens", 80)
    (folder / "one.txt").write_text(drawn.out)
    whole, own = (
        objects(arlm(folder, "detect", "text.ckpt", "one.txt", "--json", *mark, *given))[0]
        for given in ([], ["--prompt", prompt])
    )
    assert whole["tokens"] - own["tokens"] == len(prompt)
    assert own["tokens"] == 80 - 4
    assert own["z"] > whole["z"] > 4
    error = arlm(folder, "detect", "text.ckpt", "one.txt", *mark, "--prompt", "no").error()
    assert "--prompt: 'no' is not the beginning of one.txt" in error


def test_each_line_may_have_a_prompt_of_its_own(folder: Path) -> None:
    mark, prompts = ("--watermark", "gumbel:key=7"), ["the quick ", "a lazy dog, ", ""]
    lines = [json.dumps({"prompt": prompt}) for prompt in prompts]
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    given = ("--prompt-file", "prompts.jsonl", "--max-new-tokens", 40, "-n", 2, "--json", *mark)
    drawn = arlm(folder, "sample", "text.ckpt", *given)
    records = objects(drawn)
    assert [one.get("prompt", "") for one in records] == [p for p in prompts for _ in range(2)]
    (folder / "own.jsonl").write_text(drawn.out)
    found = objects(arlm(folder, "detect", "text.ckpt", "own.jsonl", "--json", *mark))
    assert {one["tokens"] for one in found} == {40 - 4}
    plain = [{"text": one["text"]} for one in records]
    plain[0]["prompt"] = prompts[0]
    (folder / "some.jsonl").write_text("\n".join(map(json.dumps, plain[:2])))
    asked = ("detect", "text.ckpt", "some.jsonl", "--json", *mark)
    first, second = objects(arlm(folder, *asked, "--prompt", "the "))
    assert (first["tokens"], second["tokens"]) == (36, 40 + len("quick ") - 4)
    (folder / "wrong.jsonl").write_text('{"text": "abc", "prompt": 3}')
    error = arlm(folder, "detect", "text.ckpt", "wrong.jsonl", *mark).error()
    assert "wrong.jsonl: line 1 has a prompt that is no text, 3; write a text" in error
    (folder / "wrong.jsonl").write_text('{"text": "abc", "prompt": "b"}')
    error = arlm(folder, "detect", "text.ckpt", "wrong.jsonl", *mark).error()
    assert "prompt: 'b' is not the beginning of wrong.jsonl:1;" in error


def test_all_ways_of_drawing_mark_alike(folder: Path) -> None:
    asked = ("sample", "text.ckpt", "-n", 2, "--max-new-tokens", 16)
    drawn = [
        arlm(folder, *asked, "--watermark", "gumbel:key=7", *way).out
        for way in ([], ["--stream"], ["--decoding", "fixed_point"], ["--out", "out.txt"])
    ]
    assert drawn[0] == drawn[1] == drawn[2] == (folder / "out.txt").read_text()
    assert drawn[0] != arlm(folder, *asked).out
    last = arlm(folder, "sample", "text.ckpt", "--top-k", 9, "--watermark", "green_list=2")
    same = "top_k=9,green_list=2"
    assert last.out == arlm(folder, "sample", "text.ckpt", "--processors", same).out


def test_texts_files_and_the_standard_input_are_alike(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a text that has no mark, of which all tokens are known."
    (folder / "plain.txt").write_text(f"{text}\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{text}\n".encode())))
    given = ("detect", "text.ckpt", "plain.txt", text, "-", "--watermark", "green_list=1:key=3")
    result = arlm(folder, *given)
    lines = [line.split(": ") for line in result.out.splitlines()]
    assert [name for name, _ in lines] == ["plain.txt", f"{text[:40]}...", "-"]
    assert len({rest for _, rest in lines}) == 1
    assert lines[0][1].startswith("46 tokens scored, green ")


def test_a_tokenizer_is_enough(folder: Path) -> None:
    tokenizer = BPETokenizer.train([LETTERS], 270)
    (folder / "bpe.json").write_text(tokenizer.json_text)
    text = "abc abc def, and other letters"
    asked = ("detect", "bpe.json", text, "--watermark", "gumbel:key=7:width=2", "--json")
    (found,) = objects(arlm(folder, *asked))
    assert found["tokens"] <= len(tokenizer.encode(text)) - 2
    assert "RUN: " in arlm(folder, "detect", "none.json", *asked[2:]).error()


def test_text_that_the_tokenizer_does_not_know_is_one_of_its_tokens(folder: Path) -> None:
    docs = PythonDocs(length=16)
    net = TransformerLanguageModel(docs.spec, width=8, heads=2, depth=1)
    checkpoints.save(folder / "docs.ckpt", net, docs)
    unknown = "\N{REPLACEMENT CHARACTER}"
    assert docs.domain.decode(docs.domain.encode("\N{SNOWMAN}", strict=False)) == unknown
    text, asked = f"a text {unknown} that was drawn", ("--watermark", "gumbel", "--json")
    (found,) = objects(arlm(folder, "detect", "docs.ckpt", text, *asked))
    assert found["tokens"] == len(text) - 4


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("detect text.ckpt letters.txt", "--watermark: missing"),
        (
            "detect image.ckpt letters.txt --watermark gumbel",
            "which `arlm detect` does not do; use",
        ),
        ("detect text.ckpt nothing.txt --watermark gumbel", "FILE: cannot read 'nothing.txt'"),
        ("detect none.ckpt letters.txt --watermark gumbel", "none.ckpt"),
        ("detect text.ckpt letters.txt --watermark kgw", "unknown watermark 'kgw'; choose from"),
        ("detect text.ckpt letters.txt --watermark top_k=3", "unknown watermark 'top_k'"),
        ("detect text.ckpt letters.txt --watermark gumbel:seed=1", "has no field 'seed'"),
        ("detect text.ckpt letters.txt --watermark gumbel:key=x", "needs a number for key"),
        ("detect text.ckpt letters.txt --watermark gumbel,synth_id", "names 2; give one"),
        ("detect text.ckpt letters.txt --watermark green_list=2:keep_end=true", "keep_end is for"),
        (
            "sample text.ckpt --processors greedy --watermark green_list=2",
            "--watermark: greedy before it",
        ),
        ("detect text.ckpt letters.txt --watermark green_list", "--watermark: green_list needs"),
        ("detect text.ckpt short.txt --watermark gumbel", "short.txt: 3 tokens hold no context"),
        ("detect text.ckpt empty.jsonl --watermark gumbel", "empty.jsonl: it has no lines"),
        ("detect text.ckpt bad.jsonl --watermark gumbel", "bad.jsonl: line 2 is no JSON object"),
        ("detect text.ckpt digits.txt --watermark gumbel", "digits.txt: "),
        ("sample text.ckpt --watermark gumbel --greedy", "--watermark: --greedy"),
        ("sample text.ckpt --watermark gumbel --beam 2", "omit"),
        ("sample image.ckpt --watermark gumbel", "--watermark: 'gumbel' given, but"),
        ("sample text.ckpt --watermark gumbel:width=0", "gumbel:width: 0 is out of range"),
    ],
)
def test_mistakes_are_told_in_one_line(folder: Path, command: str, message: str) -> None:
    (folder / "short.txt").write_text("abc\n")
    (folder / "digits.txt").write_text("0123456789\n")
    (folder / "empty.jsonl").write_text("")
    (folder / "bad.jsonl").write_text('{"text": "abc abc"}\n{"words": 3}\n')
    assert message in arlm(folder, *command.split()).error()
