"""The study of spans scores the same tokens under networks that see both sides and under one that sees the left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arlm import checkpoints
from arlm.data.dataset import Rows
from arlm.domains import SpanDomain
from arlm.models.prefix_transformer import PrefixTransformer
from arlm.models.rnn import LSTMLanguageModel
from arlm.tokenizers import ByteTokenizer
from datamodules.span_text import SpanText
from datamodules.text_file import TextFile
from tools.span_study import main, study, with_gaps


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoints of a network of spans and of two causal ones of a text."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    Path("mine.txt").write_text("the cat sat on the mat, and the dog ran. " * 90)
    text = TextFile("mine.txt", length=24, tokenizer="character")
    data = SpanText(text, noise=0.25, mean_span=2.0)
    checkpoints.save(
        Path("spans.ckpt"), PrefixTransformer(data.spec, width=8, depth=1, heads=2), data
    )
    for name, tokenizer in (("causal", "character"), ("other", "byte")):
        own = TextFile("mine.txt", length=24, tokenizer=tokenizer)
        checkpoints.save(Path(f"{name}.ckpt"), LSTMLanguageModel(own.spec, width=8), own)
    return tmp_path


def test_gaps_are_found_again() -> None:
    domain, random = SpanDomain(ByteTokenizer()), torch.Generator().manual_seed(0)
    for _ in range(20):
        text = torch.randint(256, (30,), generator=random)
        missing = torch.rand(30, generator=random) < 0.3
        source = torch.cat([domain.corrupted(text, missing)[0], torch.tensor([domain.pad_id] * 2)])
        found, gaps = with_gaps(domain, source, domain.corrupted(text, missing)[1])
        assert torch.equal(found, text)
        assert torch.equal(gaps, missing)


def test_the_same_tokens_are_scored(folder: Path, capsys: pytest.CaptureFixture) -> None:
    table = study(["spans.ckpt"], ["causal.ckpt"], "val")
    assert [*table] == ["unigram", "causal.ckpt, left only", "spans.ckpt"]
    counts = {row["tokens"] for row in table.values()}
    assert len(counts) == 1
    data = SpanText(TextFile("mine.txt", length=24, tokenizer="character"), 0.25, 2.0)
    rows = data.dataset("val")
    batch = rows[Rows(0, torch.arange(len(rows)))]
    missing = batch.scored & (batch.tokens < data.domain.first_sentinel)
    assert counts == {int(missing.sum())}
    net = checkpoints.load("causal.ckpt").net
    nats = 0.0
    for source, target in zip(batch.context, batch.tokens, strict=True):
        text, gaps = with_gaps(data.domain, source, target)
        nats -= net.log_prob(text[None])[0, gaps].sum().item()
    row = table["causal.ckpt, left only"]
    assert row["nats"] == pytest.approx(nats / int(missing.sum()), rel=1e-5)
    assert row["low"] < row["nats"] < row["high"]
    assert row["with ends"] is None
    assert table["spans.ckpt"]["with ends"] > 0
    main(["spans.ckpt", "--causal", "causal.ckpt"])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 4
    assert shown[2].startswith("causal.ckpt, left only")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["causal.ckpt"], "RUN: 'causal.ckpt' fills no spans"),
        (["spans.ckpt", "--causal", "other.ckpt"], "--causal: 'other.ckpt' has another tokenizer"),
    ],
)
def test_bad_input(folder: Path, arguments: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err
