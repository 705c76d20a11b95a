"""`arlm sample`: why a text ended, alternatives of its tokens, and prompts from the standard input and from JSONL."""

from __future__ import annotations

import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run_arlm

from arlm import checkpoints
from arlm.models.rnn import LSTMLanguageModel
from arlm.sampling import generate, row_seeds
from arlm.sampling.processors import parse_processors
from datamodules.python_docs import PythonDocs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained network of characters."""
    torch.manual_seed(0)
    folder, data = tmp_path_factory.mktemp("alternatives"), PythonDocs(length=16)
    net = LSTMLanguageModel(data.spec, width=16, depth=1)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.3 * torch.randn_like(weight)
    checkpoints.save(folder / "text.ckpt", net, data)
    return folder


def sampled(folder: Path, *arguments: object) -> list[dict[str, Any]]:
    found = run_arlm("sample", "text.ckpt", "--json", *arguments, folder=folder)
    assert found.code == 0, found.err
    return [json.loads(line) for line in found.out.splitlines()]


def test_alternatives_are_those_of_generate(folder: Path) -> None:
    given = ("--prompt", "The ", "-n", 3, "--top-k", 5, "--max-new-tokens", 7)
    records, plain = sampled(folder, *given, "--top", 3), sampled(folder, *given)
    net, domain, *_ = checkpoints.load(folder / "text.ckpt")
    expected = generate(
        *(net, row_seeds(0, 3), 11),
        forced=domain.encode("The ")[None],
        processors=parse_processors("top_k=5"),
        processed=True,
        top=3,
    )
    assert expected.top is not None
    for row, (record, bare) in enumerate(zip(records, plain, strict=True)):
        drawn = record.pop("drawn")
        assert record == bare
        assert (record["finish"], record["tokens"]) == ("length", len(drawn))
        assert [one["token"] for one in drawn] == expected.tokens[row, 4:].tolist()
        assert "".join(one["text"] for one in drawn) == record["text"].removeprefix("The ")
        nats = -sum(one["log_prob"] for one in drawn)
        assert nats == pytest.approx(record["nats"], abs=1e-4)
        for at, one in enumerate(drawn, start=4):
            assert one["processed_log_prob"] > one["log_prob"]
            ids = [other["token"] for other in one["top"]]
            assert ids == expected.top.tokens[row, at].tolist()
            chosen = [other["log_prob"] for other in one["top"]]
            assert chosen == pytest.approx(expected.top.log_prob[row, at].tolist(), abs=1e-5)


def test_what_was_dropped_has_no_probability(folder: Path) -> None:
    (record,) = sampled(folder, "--greedy", "--top", 2, "--max-new-tokens", 3)
    for one in record["drawn"]:
        first, second = one["top"]
        assert first["token"] == one["token"]
        assert first["processed_log_prob"] == one["processed_log_prob"] == 0
        assert second["processed_log_prob"] is None


def test_a_table_has_a_line_for_each_token(folder: Path) -> None:
    given = ("sample", "text.ckpt", "--max-new-tokens", 4, "--greedy", "--prompt", "a")
    found = run_arlm(*given, "--top", 2, folder=folder)
    assert found.code == 0, found.err
    lines = found.out.splitlines()[-5:]
    assert lines[0].split()[:3] == ["token", "network", "drawn"]
    (record,) = sampled(folder, *given[2:], "--top", 2)
    for line, one in zip(lines[1:], record["drawn"], strict=True):
        assert f"{100 * math.exp(one['log_prob']):.2f} %" in line
        assert "100.00 %" in line


def test_a_stop_string_is_the_reason_and_ends_the_tokens(folder: Path) -> None:
    (whole,) = sampled(folder, "--max-new-tokens", 30, "--top", 1)
    stop = whole["text"][11:13]
    end = whole["text"].index(stop)
    (cut,) = sampled(folder, "--max-new-tokens", 30, "--top", 1, "--stop", stop)
    assert (cut["text"], cut["finish"]) == (whole["text"][:end], "stop")
    assert cut["tokens"] == len(cut["drawn"]) == end + 2
    assert cut["drawn"] == whole["drawn"][: end + 2]
    assert cut["nats"] == pytest.approx(-sum(one["log_prob"] for one in cut["drawn"]))


def test_prompts_from_the_standard_input_and_from_jsonl(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["The a", "b\nc"]
    objects = "".join(json.dumps({"prompt": one, "id": 1}) + "\n" for one in prompts)
    (folder / "prompts.jsonl").write_text(objects)
    expected = sampled(folder, "--prompt-file", "prompts.jsonl", "--max-new-tokens", 3)
    for record, prompt in zip(expected, prompts, strict=True):
        assert record["text"].startswith(prompt)
        assert len(record["text"]) == len(prompt) + 3

    def piped(text: bytes, *more: str) -> list[dict[str, Any]]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        return sampled(folder, "--prompt-file", "-", "--max-new-tokens", 3, *more)

    assert piped(objects.encode()) == expected
    assert [one["text"][:3] for one in piped(b"The\nb c\n")] == ["The", "b c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--top", 0), "--top: 0 is out of range; choose at least 1"),
        (
            ("--top", 2, "--stream"),
            "--top: it shows tokens that were drawn one by one; omit --stream",
        ),
        (("--top", 2, "--beam", 2), "--top: it draws token by token; omit --beam"),
        (("--stop", "ab🦜"), "--stop: the vocabulary cannot spell 'ab🦜'"),
        (("--prompt-file", "bad.jsonl"), "--prompt-file: line 2 of 'bad.jsonl' is no JSON object"),
        (("--prompt-file", "-"), "--prompt-file: the standard input is empty"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple, message: str
) -> None:
    (folder / "bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": 1}\n')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    found = run_arlm("sample", "text.ckpt", *arguments, folder=folder)
    assert message in found.error()
