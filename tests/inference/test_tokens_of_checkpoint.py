"""What data takes over from a checkpoint that is trained further: the tokenizer, and no option that the data chooses."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from arlm import checkpoints
from arlm.adapters import Classifier
from arlm.core import Autoregressor
from arlm.data.module import TokenDataModule
from arlm.errors import UserError
from arlm.inference.runs import read_with_tokens_of
from arlm.models.bert import BERT
from arlm.models.rnn import LSTMLanguageModel
from datamodules.conversations import ConversationFiles
from datamodules.infilling_text import InfillingText
from datamodules.labelled_text import LabelledText
from datamodules.masked_text import MaskedText
from datamodules.text_file import TextFile

OTHER = "<|assistant|>Answer: {content}<|end|>"
SAYS = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": "Answer: b"}]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    Path("said.jsonl").write_text((json.dumps({"messages": SAYS}) + "\n") * 60)
    return tmp_path


def saved(data: TokenDataModule, kind: Any = LSTMLanguageModel, **options: Any) -> Autoregressor:
    """Write net.ckpt, a network of some data."""
    net: Autoregressor = kind(data.spec, width=4, depth=1, **options)
    checkpoints.save("net.ckpt", net, data)
    return net


def text(**options: Any) -> TextFile:
    return TextFile("text.txt", length=16, **options)


def says(**options: Any) -> ConversationFiles:
    return ConversationFiles("said.jsonl", "said.jsonl", "said.jsonl", **options)


def labelled(name: str, labels: list[str], **options: Any) -> LabelledText:
    rows = [f"text {i},{label}" for i, label in enumerate(labels * 40)]
    Path(name).write_text("\n".join(["text,label", *rows]))
    return LabelledText(name, min_count=1, **options)


def test_a_template_is_the_datas_own(capsys: pytest.CaptureFixture) -> None:
    base = says(tokenizer="character")
    saved(base)
    read_with_tokens_of(same := says(), "net.ckpt")
    assert same.domain.template == base.domain.template
    assert not capsys.readouterr().err
    read_with_tokens_of(data := says(assistant_template=OTHER), "net.ckpt")
    assert data.domain.template["assistant"] == OTHER
    assert data.domain.tokenizer.fingerprint == base.domain.tokenizer.fingerprint
    assert "had other tokens after those of the tokenizer (assistant_template)" in (
        capsys.readouterr().err
    )


def test_masks_are_the_datas_own() -> None:
    saved(base := MaskedText(text(tokenizer="character")), BERT, heads=2)
    for options in ({"bound": True}, {"pairs": "order"}):
        read_with_tokens_of(data := MaskedText(text(), **options), "net.ckpt")  # type: ignore[arg-type]
        assert (data.domain.bound, data.domain.pairs) == (data.bound, data.pairs != "none")
        assert data.text.domain.tokenizer.fingerprint == base.domain.tokenizer.fingerprint


def test_classes_have_the_numbers_of_training() -> None:
    base = labelled("base.csv", ["good", "bad", "fair"], classes=["good", "bad", "fair"])
    net = Classifier(base.spec, partial(LSTMLanguageModel, width=4, depth=1))
    checkpoints.save("net.ckpt", net, base)
    read_with_tokens_of(data := labelled("more.csv", ["good", "bad"]), "net.ckpt")
    assert data.domain.classes == ["good", "bad", "fair"]
    with pytest.raises(UserError, match=r"data.classes: it is \['ham', 'spam'\], but 'net.ckpt' w"):
        read_with_tokens_of(labelled("other.csv", ["ham", "spam"]), "net.ckpt")


def test_added_tokens_of_another_domain_are_named(capsys: pytest.CaptureFixture) -> None:
    saved(InfillingText(text()))
    read_with_tokens_of(says(), "net.ckpt")
    assert (
        "(InfillingDomain, not ConversationDomain); the tokens of this data there begin with"
        in (capsys.readouterr().err)
    )
    saved(text())
    read_with_tokens_of(says(), "net.ckpt")
    assert not capsys.readouterr().err
