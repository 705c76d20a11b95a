"""Texts on a terminal: control characters are shown and not obeyed; a file or a pipe gets the text itself."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from arlm.cli import chat as chat_verb
from arlm.cli import texts
from arlm.cli.terminal import shown

TEXT = "a\tb\nc\x1b[2J\x07\r\x7f\x9bé\u2028"
VISIBLE = "a\tb\nc\\x1b[2J\\x07\\x0d\\x7f\\x9bé\u2028"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("out", "expected"), [(Terminal(), VISIBLE), (io.StringIO(), TEXT)])
def test_control_characters_are_shown_on_a_terminal(out: io.StringIO, expected: str) -> None:
    with redirect_stdout(out):
        assert shown(TEXT) == expected


def test_an_answer_and_a_stream_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def say(text: str, show: Any) -> SimpleNamespace:
        show(TEXT)
        return SimpleNamespace(dropped=0, finish="end")

    def written(*arguments: Any, show: Any, **options: Any) -> list[SimpleNamespace]:
        show(TEXT)
        return [SimpleNamespace(tokens=1)]

    monkeypatch.setattr("arlm.inference.writer.written", written)
    monkeypatch.setattr("arlm.sampling.class_labels", lambda *_: None)
    monkeypatch.setattr(chat_verb, "piped", lambda: iter([("line 1", "hello")]))
    options: Any = SimpleNamespace(n=1, seed=0, max_new_tokens=1, noise=None, stop=[], label=None)
    view: Any = SimpleNamespace(domain=SimpleNamespace(decode=None))
    net: Any = None
    with redirect_stdout(Terminal()) as out:
        chat_verb.talk(SimpleNamespace(say=say), terminal=False)  # type: ignore[arg-type]
        texts.stream(options, net, view, [], [torch.tensor([0])])
    assert out.getvalue() == f"{VISIBLE}\n{VISIBLE}\n"
