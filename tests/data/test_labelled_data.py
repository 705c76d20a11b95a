"""Labelled texts: files with faults, splits, made tasks whose labels are checked by another rule."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from arlm.errors import UserError
from datamodules.labelled_text import LabelledText
from datamodules.made_tasks import COLOURS, NOUNS, PLURALS, TASKS, MadeTask
from datamodules.sst2 import SST2

ROWS = [("a good film", "pos"), ("a bad film", "neg"), ("good, very good", "pos")]


def csv(rows: list[tuple[str, str]]) -> str:
    return "text,label\n" + "".join(f'"{text}",{label}\n' for text, label in rows)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".csv.gz"])
def test_formats(tmp_path: Path, ending: str) -> None:
    rows = [(f"{text} {i}", label) for i in range(40) for text, label in ROWS]
    content = csv(rows)
    if ending == ".tsv":
        content = "label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in rows)
    elif ending == ".jsonl":
        content = "\n".join(json.dumps({"text": t, "label": label, "id": 3}) for t, label in rows)
    path = tmp_path / f"rows{ending}"
    path.write_bytes(
        gzip.compress(content.encode()) if ending.endswith(".gz") else content.encode()
    )
    data = LabelledText(str(path), tokenizer="character", min_count=1)
    assert data.domain.classes == ["neg", "pos"]
    parts = {split: data.examples(split) for split in ("train", "val", "test")}
    found = [(e.texts[0], e.label) for part in parts.values() for e in part]
    assert sorted(found) == sorted(rows)
    assert min(map(len, parts.values())) > 0
    batch = next(iter(data.loader("train")))
    assert batch.tokens.shape[1] == 1
    assert batch.scored.all()
    ends = (batch.context != data.domain.pad_id).sum(1) - 1
    assert (batch.context[torch.arange(len(ends)), ends] == data.domain.extract_id).all()


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("x.csv", "text,label\nhi,1\n,0\n", {}, "line 3 of 'x.csv': 'text' is empty; give a text"),
        ("x.csv", "text,label\nhi,1\na,b,c\n", {}, "line 3 of 'x.csv': it has 3 fields"),
        ("x.csv", "sentence,label\nhi,1\n", {}, "line 2 of 'x.csv': there is no 'text'; choose from sentence, label"),
        ("x.csv", "text,label\nhi,1\nho,2\nhu,5\n", {"classes": ["1", "2"]}, "line 4 of 'x.csv': label: '5' is not one of the classes '1', '2'"),
        ("x.csv", "text,label\nhi,1\nho,1\n", {}, "data.classes: all training examples have the label '1'"),
        ("x.csv", "", {}, "data.path: 'x.csv' has no examples"),
        ("x.jsonl", '{"text": "a", "label": 1}\n{"text": 3, "label": 1}\n', {}, "line 2 of 'x.jsonl': 'text' is 3; give a text"),
        ("x.jsonl", '{"text": "a", "label": null}\n', {}, "line 1 of 'x.jsonl': 'label' is None; give a class"),
        ("x.jsonl", '{"text": "a\\ud800", "label": 1}\n', {}, "line 1 of 'x.jsonl': character 2 of 'text' is half of a surrogate pair"),
        ("x.jsonl", '{"text": "a", "label": "\\ud800"}\n', {}, "line 1 of 'x.jsonl': character 1 of 'label' is half of a surrogate pair"),
        ("x.csv", "text,label,text\nhi,1,ho\n", {}, "line 1 of 'x.csv': it names the column 'text' twice"),
        ("x.csv", "text,label\nhi,1\n", {"form": "choice"}, "line 2 of 'x.csv': 1 texts; give a question"),
        ("x.csv", "text,label\nhi,1\n", {"form": "choice", "classes": ["1", "0"]}, "data.classes: ['1', '0'] is out of range; omit it, or give"),
        ("x.jsonl", '{"text": ["q", "a", "b"], "label": "yes"}\n', {"form": "choice"}, "line 1 of 'x.jsonl': label: 'yes' is not one of the classes '0', '1'"),
        ("x.jsonl", "text,label\n", {}, "line 1 of 'x.jsonl': it is no JSON"),
        ("x.jsonl", "[1]\n", {}, "line 1 of 'x.jsonl': it is no object"),
        ("x.csv", "text,label\nhi,1\nho,7\n", {"value_range": [0, 5]}, "line 3 of 'x.csv': label: '7' is no number from 0 to 5"),
        ("x.csv", "text,label\nhi,1\nho,2\n", {"form": "entailment"}, "line 2 of 'x.csv': texts: 1 given; an example of entailment has 2"),
        ("x.csv", "text,label\nhi,1\nho,2\n", {"form": "pairs"}, "data.form: pairs is out of range; choose classification"),
    ],
)  # fmt: skip
def test_faults_name_the_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: str,
    options: dict,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(content)

    def read_all() -> None:
        data = LabelledText(name, name, name, tokenizer="byte", **options)
        for split in ("train", "val", "test"):
            data.dataset(split)

    with pytest.raises(UserError, match=re.escape(message)):
        read_all()


def test_long_texts_are_left_out_cut_or_refused(tmp_path: Path, capsys) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(csv([("short", "a"), ("x" * 40, "b"), ("brief", "b")]))
    data = LabelledText(str(path), str(path), str(path), tokenizer="byte", length=16)
    assert len(data.dataset("train")) == 2
    assert "1 of 3 training examples are longer than 16 tokens" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"line 3 of .* has 41 tokens, more than 16; raise it"):
        data.dataset("val")
    cut = LabelledText(str(path), tokenizer="byte", length=16, truncate=True)
    cut.paths = {"path": path, "val_path": path, "test_path": path}
    assert cut.dataset("val").contexts[1].shape == (1, 16)


def test_a_batch_is_a_function_of_seed_and_epoch() -> None:
    first, second = (MadeTask("brackets", examples=100, batch_tokens=128) for _ in range(2))
    a, b = (next(iter(data.loader("train"))) for data in (first, second))
    assert torch.equal(a.context, b.context)
    loader = first.loader("train")
    loader.order.set_epoch(1)
    assert not torch.equal(next(iter(loader)).context, a.context)


def facts(text: str) -> dict[str, str]:
    return dict(re.findall(r"the (\w+) is (\w+)", text))


def solved_brackets(text: str) -> str:
    while (shorter := text.replace("()", "").replace("[]", "")) != text:
        text = shorter
    return "no" if text else "yes"


def solved_agreement(text: str) -> str:
    words = text.split()
    many = words[1] in {PLURALS.get(noun, noun + "s") for noun in NOUNS}
    return "yes" if many != words[-1].endswith("s") else "no"


def solved_entailment(premise: str, hypothesis: str) -> str:
    ((noun, colour),) = facts(hypothesis).items()
    known = facts(premise)
    if noun not in known:
        return "neutral"
    return "entailment" if known[noun] == colour else "contradiction"


def solved_similarity(first: str, second: str) -> str:
    return "same" if facts(first) == facts(second) else "different"


def solved_choice(question: str, *choices: str) -> str:
    noun = question.split()[-2]
    return str(choices.index(facts(question.partition(" . ")[0])[noun]))


SOLVED: dict[str, Callable[..., str]] = {
    "brackets": solved_brackets,
    "agreement": solved_agreement,
    "entailment": solved_entailment,
    "similarity": solved_similarity,
    "choice": solved_choice,
    "sum": lambda text: str(sum(map(int, text.split()))),
}


@pytest.mark.parametrize("task", TASKS)
def test_labels_of_made_tasks_are_exact(task: str) -> None:
    data = MadeTask(task, examples=300)
    parts = {split: data.examples(split) for split in ("train", "val", "test")}
    for examples in parts.values():
        assert all(SOLVED[task](*e.texts) == e.label for e in examples)
    held = {e.texts for split in ("val", "test") for e in parts[split]}
    assert not held & {e.texts for e in parts["train"]}
    labels = [e.label for e in parts["val"]]
    if TASKS[task].classes:
        shares = [labels.count(name) / len(labels) for name in TASKS[task].classes]
        assert min(shares) > 0.8 / len(shares)
    assert set(COLOURS) >= set(facts(" ".join(parts["val"][0].texts)).values())


def test_a_label_of_choices_is_the_number_of_a_text(tmp_path: Path) -> None:
    """Sorted as text, "10" would come before "2"."""
    path = tmp_path / "rows.jsonl"
    rows = [{"text": ["q", *"abcdefghijk"], "label": i} for i in range(11)]
    path.write_text("\n".join(map(json.dumps, rows)))
    data = LabelledText(str(path), str(path), str(path), form="choice", tokenizer="byte")
    assert data.dataset("train").tokens[:, 0].tolist() == list(range(11))


@pytest.mark.parametrize("form", ["similarity", "choice"])
def test_other_orders_of_the_texts_are_in_the_same_split(tmp_path: Path, form: str) -> None:
    path = tmp_path / "rows.jsonl"
    first = ["question"] if form == "choice" else []
    orders = [(f"a{i}", f"b{i}")[::way] for i in range(60) for way in (1, -1)]
    rows = [{"text": [*first, *texts], "label": i % 2} for i, texts in enumerate(orders)]
    path.write_text("\n".join(map(json.dumps, rows)))
    data = LabelledText(str(path), form=form, tokenizer="byte")
    made = MadeTask(form, examples=2000)
    for one in (data, made):
        parts = [
            {tuple(sorted(e.texts)) for e in one.examples(split)}
            for split in ("train", "val", "test")
        ]
        assert all(parts)
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]


def test_sst2(data_dir: Path) -> None:
    if not (data_dir / "sst2").is_dir():
        pytest.skip("needs SST-2")
    data = SST2(length=64)
    sizes = [len(data.examples(split)) for split in ("train", "val", "test")]
    assert sizes == [6920, 872, 1821]
    positive = sum(e.label == "positive" for e in data.examples("test"))
    assert positive == 909
