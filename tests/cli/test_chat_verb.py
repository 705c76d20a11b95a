"""`arlm chat` by a script, and the other verbs on networks of conversations."""

from __future__ import annotations

import io
import itertools
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Result, run_arlm
from small_runs import write_text_and_image

from arlm import checkpoints
from arlm.domains.conversation import Message
from arlm.inference.answers import answers, banned
from arlm.inference.chat import Chat
from arlm.models.rnn import LSTMLanguageModel
from arlm.reports.view import view_of
from arlm.sampling.processors.greedy import Greedy
from datamodules.conversations import ConversationFiles
from datamodules.instructions import Instructions

LINES = [{"prompt": f"say {c}", "output": c * 3} for c in "abcdefghijk" * 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """chat.ckpt, not trained, of conversations in data.jsonl, and text.ckpt."""
    folder = tmp_path_factory.mktemp("chat")
    write_text_and_image(folder, "ab cd" * 500)
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (folder / "held.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES[:4]))
    torch.manual_seed(1)
    path = str(folder / "data.jsonl")
    held = str(folder / "held.jsonl")
    data = ConversationFiles(path, held, held, length=48, tokenizer="character", bleu=True)
    net = LSTMLanguageModel(data.spec, width=12)
    for parameter in net.parameters():
        parameter.data += torch.randn_like(parameter) * 0.4
    checkpoints.save(folder / "chat.ckpt", net, data)
    return folder


@pytest.fixture
def chat(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(text: str, *arguments: object) -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        return run_arlm("chat", "chat.ckpt", "--precision", 64, *arguments, folder=folder)

    return run


def expected(folder: Path, *said: str, **options: Any) -> list[str]:
    """The answers of Python."""
    net, domain, *_ = checkpoints.load(folder / "chat.ckpt")
    session = Chat(net.double(), domain, **options)  # type: ignore[arg-type]
    return [session.say(text).text for text in said]


def test_a_script_talks_line_by_line(chat: Any, folder: Path) -> None:
    done = chat("say a\n\nsay b\n/reset\nsay a\n/quit\nsay c\n", "--max-new-tokens", 7, "--seed", 2)
    assert done.code == 0, done.err
    first = expected(folder, "say a", "say b", new_tokens=7, seed=2)
    again = expected(folder, "say a", new_tokens=7, seed=2)
    assert done.out == "\n".join([*first, "the conversation is forgotten", *again]) + "\n"
    assert "note: the answer was cut (length) after 7 tokens" in done.err


def test_a_script_talks_json_and_saves(chat: Any, folder: Path) -> None:
    lines = [{"content": "say a"}, {"content": "say b"}, {"command": "/save kept.jsonl"}]
    given = "\n".join(map(json.dumps, lines))
    done = chat(given, "--json", "--system", "jhi", "--top-k", 3, "--max-new-tokens", 9)
    assert done.code == 0, done.err
    first, second, third = map(json.loads, done.out.splitlines())
    assert set(first) == {"role", "content", "finish", "tokens", "read", "dropped"}
    assert first["role"] == "assistant"
    assert first["read"] > second["read"] - first["tokens"]
    assert third == {"command": "/save kept.jsonl", "result": "kept.jsonl"}
    saved = json.loads((folder / "kept.jsonl").read_text())
    assert saved["messages"][0] == {"role": "system", "content": "jhi"}
    assert saved["messages"][4] == {"role": "assistant", "content": second["content"]}
    # It is continued, with a state of its own, and it is data to train on.
    given = ("--top-k", 3, "--max-new-tokens", 9)
    more = chat("say c\n", "--history", "kept.jsonl", *given)
    assert more.code == 0, more.err
    third_turn = "\n".join(json.dumps({"content": text}) for text in ("say a", "say b", "say c"))
    whole = chat(third_turn, "--json", "--system", "jhi", *given)
    assert more.out == json.loads(whole.out.splitlines()[2])["content"] + "\n"


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("say Z\n", [], "line 1 of standard input: text: "),
        (
            "say a\n/nothing\n",
            [],
            "line 2 of standard input: /nothing: not known; the commands are",
        ),
        ("/save\n", [], "line 1 of standard input: /save: the file is missing"),
        ("/save x.jsonl\n", [], "/save: nothing was said yet"),
        (
            "say a\n/save x\0y\n",
            [],
            "line 2 of standard input: /save: 'x\\x00y' cannot name a file",
        ),
        (
            '{"content": "say a", "command": "/reset"}\n',
            ["--json"],
            'line 1 of standard input: it has a "content" and a "command"; write a line for each',
        ),
        ("say a\n", ["--json"], "line 1 of standard input: it is no JSON object"),
        ('{"content": 1}\n', ["--json"], "line 1 of standard input: it is no JSON object"),
        (
            '{"content": ""}\n',
            ["--json"],
            "line 1 of standard input: messages[0].content: it is emp",
        ),
        ("", ["--max-new-tokens", 0], "--max-new-tokens: 0"),
        ("", ["--history", "data.jsonl"], "--history: 'data.jsonl' has 33 conversations"),
        ("", ["--history", "none.jsonl"], "cannot read 'none.jsonl'"),
        ("", ["--system", "Z"], "text: "),
        ("", ["--stop", "Z"], "--stop: the vocabulary cannot spell 'Z'"),
        ("", ["--greedy", "--top-k", 2], "--greedy: "),
    ],
)
def test_mistakes(text: str, arguments: list[object], message: str, chat: Any) -> None:
    assert message in chat(text, *arguments).error()


@pytest.mark.parametrize("command", ["/quit", "/quit now", " /quit "])
def test_the_command_quit_leaves(chat: Any, command: str) -> None:
    plain = chat(f"/reset\n{command}\nsay Z\n")
    assert (plain.code, plain.out) == (0, "the conversation is forgotten\n")
    given = json.dumps({"command": command})
    done = chat(f'{{"command": "/reset "}}\n{given}\nno JSON\n', "--json")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 1


def test_an_empty_answer_is_history(chat: Any, folder: Path) -> None:
    said = [{"role": "user", "content": "say a"}, {"role": "assistant", "content": ""}]
    (folder / "empty.jsonl").write_text(json.dumps({"messages": said}) + "\n")
    done = chat("say b\n", "--history", "empty.jsonl", "--max-new-tokens", 4)
    assert done.code == 0, done.err


def test_other_runs_do_not_chat(folder: Path) -> None:
    line = run_arlm("chat", "text.ckpt", folder=folder).error()
    assert "checkpoint: 'text.ckpt' models text, which `arlm chat` does not do" in line


def test_a_terminal(chat: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake is shown and the conversation goes on; Ctrl-C begins the line again, and Ctrl-D ends."""
    interrupted = "say c"  # while it is read
    typed = iter(["say a", "/what", KeyboardInterrupt(), interrupted, "say b", "/help", EOFError()])
    begin = Chat._begin

    def begin_or_stop(self: Chat, row: torch.Tensor, limit: int) -> Any:
        if len(self.messages) == 2 and interrupted in self.domain.decode(row):
            raise KeyboardInterrupt
        return begin(self, row, limit)

    monkeypatch.setattr(Chat, "_begin", begin_or_stop)

    def read(prompt: str) -> str:
        given = next(typed)
        if isinstance(given, BaseException):
            raise given
        return given

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(sys, "stdin", Terminal())
    options = ("--precision", 64, "--max-new-tokens", 5)
    done = run_arlm("chat", "chat.ckpt", *options, folder=folder)
    assert done.code == 0, done.err
    assert done.out.startswith("\n".join(expected(folder, "say a", "say b", new_tokens=5)))
    assert "arlm: /what: not known" in done.err
    assert "Ctrl-D or /quit leaves" in done.err
    assert "note: interrupted" in done.err
    assert "/save FILE" in done.out


def test_a_prompt_is_what_a_user_says(folder: Path) -> None:
    done = run_arlm(
        "sample", "chat.ckpt", "--prompt", "say a", "--max-new-tokens", 4, folder=folder
    )
    assert done.out.startswith("<|user|>say a<|assistant|>")
    line = run_arlm("sample", "chat.ckpt", folder=folder).error()
    assert "--prompt: the checkpoint answers; give what a user says" in line
    done = run_arlm("next", "chat.ckpt", "--prompt", "say a", folder=folder)
    assert done.code == 0, done.err


def test_answers_are_scored(folder: Path) -> None:
    (folder / "two.jsonl").write_text(json.dumps(LINES[0]) + "\n" + json.dumps(LINES[1]) + "\n")
    done = run_arlm("score", "chat.ckpt", "two.jsonl", "--json", folder=folder)
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [one["file"] for one in records[:2]] == [f"two.jsonl:{i}, answer 1" for i in (1, 2)]
    assert records[2]["tokens"] == 8
    assert records[2]["bytes"] == 8
    line = run_arlm("score", "chat.ckpt", "two.jsonl", "--prompt", "a", folder=folder).error()
    assert "--prompt: the checkpoint answers" in line


def test_evaluate_counts_exact_answers(folder: Path) -> None:
    done = run_arlm("evaluate", "chat.ckpt", "--json", "--baselines", folder=folder)
    record = json.loads(done.out)
    figures = record["answers, greedy"]
    assert figures["answers"] == 4
    assert figures["exact_low"] <= figures["exact"] <= figures["exact_high"] < 100
    assert {"bleu", "chrf"} <= set(figures)
    assert record["tokens"] == record["bytes"] == 16
    shown = run_arlm("evaluate", "chat.ckpt", folder=folder).out
    assert "answers, greedy: " in shown


def test_greedy_answers_are_exact(folder: Path) -> None:
    """Of conversations that the network itself has written, all are."""
    net, domain, *_ = checkpoints.load(folder / "chat.ckpt")
    users = [Message("user", f"say {c}") for c in "abcdefgh"]
    prompts = [domain.prompt([user]) for user in users]  # type: ignore[attr-defined]
    found = answers(net, domain, prompts, (*banned(domain), Greedy())).texts  # type: ignore[arg-type]
    said = [[user, Message("assistant", text)] for user, text in zip(users, found, strict=True)]
    said[0][1] = Message("assistant", "not this")
    data = SimpleNamespace(conversations=lambda split: said, bleu=False)
    view = view_of(domain)
    figures = view.quality(net, data, "test", 5, 1.0)["answers, greedy"]  # type: ignore[arg-type]
    assert figures["exact"] == 100 * 7 / 8
    assert figures["answers"] == view.items(data, "test") == 8  # type: ignore[arg-type]


def test_fit_from_scratch_and_from_a_network_of_text(folder: Path) -> None:
    """The rows of the roles come after the tokenizer's tokens; the network's own weights stay those of the text."""
    short = (
        "--trainer.max_steps",
        2,
        "--trainer.limit_val_batches",
        1,
        "--trainer.accelerator",
        "cpu",
    )
    data = ("--data", "Instructions", "--data.conversations", 50, "--data.length", 48)
    net = ("--model.net", "pretrained", "--model.net.checkpoint", "text.ckpt")
    (folder / "ab.jsonl").write_text(
        "".join(
            json.dumps({"prompt": "".join(letters), "output": "cd"}) + "\n"
            for letters in itertools.product("abcd", repeat=3)
        )
    )
    files = ("--data", "ConversationFiles", "--data.train", "ab.jsonl", "--data.length", 16)
    done = run_arlm("fit", *files, *net, *short, "--samples.n", 2, folder=folder)
    assert done.code == 0, done.err
    (run,) = (path.parent for path in folder.glob("runs/*/version_0/checkpoints"))
    loaded = checkpoints.load(run)
    text = checkpoints.load(folder / "text.ckpt")
    assert loaded.net.spec.vocab_size == text.net.spec.vocab_size + 4
    assert loaded.net.spec.fingerprint == text.net.spec.fingerprint
    samples = next(run.glob("samples/*.txt")).read_text()
    assert re.match(r"--- 0\n[a-d]{3}\n= cd\n> ", samples)
    line = run_arlm("fit", *data, *net, *short, folder=folder).error()
    assert "data: conversation 1 of the train split: text: character " in line
    line = run_arlm("fit", *data, "--model.net", "pixelcnn_paper", *short, folder=folder).error()
    assert "model.net" in line


def test_instructions_of_other_sizes_are_refused() -> None:
    with pytest.raises(Exception, match=r"data\.longest: 3"):
        Instructions(shortest=4, longest=3)
