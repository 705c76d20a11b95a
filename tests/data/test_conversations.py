"""Conversations from files: read, batched, scored where an answer is; refused in one line where they are wrong."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run_arlm

from arlm.core import Scores
from arlm.data.dataset import Rows
from arlm.domains.conversation import Message
from arlm.errors import UserError
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.training.objectives import Likelihood
from datamodules.conversations import ConversationFiles
from datamodules.instructions import ALPHABETS, HELD_OUT, TASKS, Instructions

NETS: dict[str, Any] = {
    "transformer": lambda spec: TransformerLanguageModel(spec, width=16, depth=2, heads=2),
    "lstm": lambda spec: LSTMLanguageModel(spec, width=12, depth=2),
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pairs = [{"prompt": f"say {i}", "output": str(i), "id": i} for i in range(60)]
    pairs[3]["system"] = "be brief"
    Path("pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pairs))
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "bé"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d" * 40},
    ]
    lines = [json.dumps({"messages": messages[:n]}) for n in (2, 4)]
    Path("chat.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return tmp_path


def test_both_forms_of_a_line(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ConversationFiles("chat.jsonl.gz", "pairs.jsonl", "pairs.jsonl", length=40)
    assert data.conversations("train")[0] == [Message("user", "a"), Message("assistant", "bé")]
    expected = [Message("system", "be brief"), Message("user", "say 3"), Message("assistant", "3")]
    assert data.conversations("val")[3] == expected
    assert len(data.dataset("train")) == 1
    note = "note: 1 of 2 training conversations are longer than 40 tokens and are left out"
    assert note in capsys.readouterr().err
    long = ConversationFiles("pairs.jsonl", "chat.jsonl.gz", length=40)
    with pytest.raises(
        UserError, match=r"data\.length: conversation 2 of the val split has 51 tok"
    ):
        long.dataset("val")
    with pytest.raises(UserError, match=r"conversation 1 of the train split has .* more than 5"):
        ConversationFiles("pairs.jsonl", length=5).dataset("train")


def test_splits_divide_a_file(files: Path) -> None:
    data = ConversationFiles("pairs.jsonl", held_out=0.1)
    parts = [data.conversations(split) for split in ("train", "val", "test")]
    assert all(3 <= len(part) <= 10 for part in parts[1:])
    every = [one[-1].content for part in parts for one in part]
    assert sorted(map(int, every)) == list(range(60))
    half = ConversationFiles("pairs.jsonl", "chat.jsonl.gz", held_out=0.1)
    sizes = [len(half.conversations(split)) for split in ("train", "val", "test")]
    assert sizes[0] + sizes[2] == 60
    assert sizes[1] == 2
    with pytest.raises(UserError, match=r"data\.held_out: 0\.01 of 2 conversations leave none"):
        ConversationFiles("chat.jsonl.gz", held_out=0.01).conversations("val")


@pytest.mark.parametrize("share", [0.05, 0.35, 0.4])
def test_a_split_has_its_share_and_all_equal_conversations(share: float, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"prompt": f"say {i}", "output": str(i)}) + "\n" for i in range(2000)]
    path.write_text("".join(lines + lines))
    data = ConversationFiles(str(path), held_out=share)
    splits = [
        Counter(one[-1].content for one in data.conversations(s)) for s in ("train", "val", "test")
    ]
    for part, expected in zip(splits, (1 - 2 * share, share, share), strict=True):
        assert abs(len(part) / 2000 - expected) < 0.04
        assert set(part.values()) == {2}


def test_a_batch_is_padded_and_its_answers_are_scored(files: Path) -> None:
    data = ConversationFiles("pairs.jsonl")
    rows = Rows(0, torch.tensor([4, 3, 0]))
    dataset = data.dataset("train")
    batch, domain = dataset[rows], data.domain
    for i, tokens, scored in zip([4, 3, 0], batch.tokens, batch.scored, strict=True):
        assert (
            domain.decode(tokens[scored]) == data.conversations("train")[i][-1].content + "<|end|>"
        )
    every = torch.cat([row.tokens for row in dataset.rows])
    assert torch.equal(every[dataset.positions(rows)[batch.scored]], batch.tokens[batch.scored])


@pytest.mark.parametrize("name", NETS)
def test_what_is_not_scored_has_no_gradient(name: str) -> None:
    """Exactly 0 at prompts, at other speakers' turns and at padding; 1 nat a token of an answer and at its end."""
    data = Instructions(conversations=40, turns=3)
    torch.manual_seed(0)
    net = NETS[name](data.spec).double()
    batch = next(iter(data.loader("train")))
    score, kept = net.score, list[torch.Tensor]()

    def kept_score(tokens: torch.Tensor, context: Any = None) -> Scores:
        scores = score(tokens, context)
        scores.log_prob.retain_grad()
        kept.append(scores.log_prob)
        return scores

    net.score = kept_score
    objective = Likelihood()
    objective.prepare(net)
    terms = objective.loss(net, batch)
    terms.sum.backward()
    assert torch.equal(kept[0].grad, -batch.scored.double())
    spoken = [batch.tokens == token for token in data.domain.never_drawn]
    assert not (torch.stack(spoken).any(0) & batch.scored).any()
    assert ((batch.tokens == data.domain.eos_id) & batch.scored).sum() >= len(batch.tokens)
    assert terms.count == batch.scored.sum()


@pytest.mark.parametrize("name", NETS)
def test_conversations_of_a_batch_do_not_read_each_other(name: str) -> None:
    """Editing one leaves the logits of the others unchanged, bit for bit; padding changes none."""
    data = Instructions(conversations=40)
    torch.manual_seed(0)
    net = NETS[name](data.spec).double().eval()
    dataset = data.dataset("train")
    chosen = torch.arange(6)
    batch = dataset[Rows(0, chosen)]
    before = net(batch.tokens)
    edited = batch.tokens.clone()
    edited[2] = (edited[2] + 1) % data.spec.vocab_size
    after = net(edited)
    others = chosen != 2
    assert torch.equal(before[others], after[others])
    assert not torch.equal(before[2], after[2])
    log_prob = net.log_prob(batch.tokens).detach()
    alone = [net.log_prob(dataset.rows[i].tokens[None])[0].detach() for i in chosen]
    together = -log_prob[batch.scored].sum()
    apart = -sum(own[dataset.rows[i].scored].sum() for i, own in enumerate(alone))
    assert float(together) == pytest.approx(float(apart), rel=1e-12)


def test_instructions_are_right_and_the_test_has_other_combinations() -> None:
    """The alphabet is that of the text which the task is about, also where it is the answer before."""
    data = Instructions(conversations=2000, turns=3)
    kinds: dict[str, set[tuple[str, str]]] = {}
    for split in ("train", "val", "test"):
        kinds[split] = set()
        for conversation in data.conversations(split):
            before = ""
            for user, assistant in zip(conversation[::2], conversation[1::2], strict=True):
                task, text = user.content.split()
                named = before if text == "IT" else text
                assert assistant.content == TASKS[task](named)
                before = assistant.content
                has = {*named.lower()}
                digits, letters = has & {*"0123456789"}, has & {*"abcdef"}
                alphabet = "mixed" if digits and letters else "digits" if digits else "letters"
                kinds[split].add((task, alphabet))
    assert kinds["test"] == HELD_OUT
    assert kinds["train"] == kinds["val"] == {*product(TASKS, ALPHABETS)} - HELD_OUT
    assert Instructions(conversations=300).conversations("val") == Instructions().conversations(
        "val"
    )
    with pytest.raises(UserError, match="choose at least 2"):
        Instructions(shortest=1)


WRONG = {
    "{": "it is no JSON (Expecting property name enclosed in double quotes at column 2)",
    "[" * 10**5: "it is no JSON (too deeply nested)",
    "[1]": "it is a list, not an object",
    '{"prompt": "a"}': "output: it is missing",
    '{"output": "a"}': "prompt: it is missing",
    '{"prompt": "", "output": "a"}': "prompt: it is empty",
    '{"prompt": "a", "output": " "}': "output: it is empty",
    '{"prompt": 1, "output": "a"}': "prompt: it is a number; give a text",
    '{"prompt": "a", "output": "\\ud800"}': "output: character 1 is half of a surrogate pair",
    '{"messages": {}}': "messages: it is an object; give a list",
    '{"messages": []}': "messages: there are none",
    '{"messages": ["a"]}': "messages[0]: it is a text; write",
    '{"messages": [{"role": "user"}]}': "messages[0].content: it is missing",
    '{"messages": [{"role": "user", "content": null}]}': "messages[0].content: it is null",
    '{"messages": [{"role": "bot", "content": "a"}]}': "messages[0].role: 'bot' is not known",
    '{"messages": [{"role": "assistant", "content": "a"}]}': "messages[0].role: 'assistant' begins",
    '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}': (
        "messages[1].content: it is empty; give a text, or leave the conversation out"
    ),
    '{"messages": [{"role": "user", "content": "a"}]}': "messages[0].role: 'user' ends the convers",
}


@pytest.mark.parametrize("line", WRONG, ids=list(map(str, range(len(WRONG)))))
def test_a_wrong_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"prompt": "a", "output": "b"}}\n{line}\n')
    with pytest.raises(UserError) as caught:
        ConversationFiles(str(path)).conversations("train")
    assert f"data.train: line 2 of '{path}': {WRONG[line]}" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_fit_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"messages": [{"role": "assistant", "content": "a"}]}\n')
    (tmp_path / "none.jsonl").write_text("")
    data = ("--data", "ConversationFiles", "--data.train")
    net = ("--model.net", "gru", "--trainer.fast_dev_run", "1")
    line = run_arlm("fit", *data, "bad.jsonl", *net, folder=tmp_path).error()
    assert "data.train: line 1 of 'bad.jsonl': messages[0].role: 'assistant' begins" in line
    line = run_arlm("fit", *data, "none.jsonl", *net, folder=tmp_path).error()
    assert "data.train: 'none.jsonl' is empty" in line
    wrong = ("--data.assistant_template", "<|assistant|><|end|>")
    line = run_arlm("fit", *data, "bad.jsonl", *wrong, *net, folder=tmp_path).error()
    assert "data.assistant_template: " in line
    assert "has no single place for the message" in line
