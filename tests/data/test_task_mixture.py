"""TaskMixture: prompts, a written rule of mixing, one tokenizer, and figures of each task."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import laws
import pytest

from arlm import checkpoints
from arlm.data.module import TokenDataModule
from arlm.data.pairs import Sentences
from arlm.data.parallel_module import ParallelDataModule
from arlm.domains import TaskDomain
from arlm.errors import UserError
from arlm.models.transformer_seq2seq import TransformerSeq2Seq
from arlm.reports.view import view_of
from datamodules.dates import Dates
from datamodules.labels_as_text import LabelsAsText
from datamodules.task_mixture import TaskMixture, mixed


class Numbered(ParallelDataModule):
    """Pairs of a letter with a number, and its double."""

    def __init__(self, letter: str, count: int) -> None:
        super().__init__(tokenizer="character", min_count=1)
        self.letter, self.count = letter, count

    def read(self, split):
        rows = range(self.count if split == "train" else 3)
        return Sentences([f"{self.letter}{i}" for i in rows], [f"{2 * i}" for i in rows])


def mixture(temperature: float = 2.0, only: str | None = None) -> TaskMixture:
    tasks = [Numbered("a", 100), Numbered("b", 10), Numbered("c", 25)]
    options = {"tokenizer": "character", "min_count": 1, "length": 16, "batch_tokens": 64}
    return TaskMixture(tasks, ["double a: ", "b: ", "c: "], temperature, only, **options)


@pytest.mark.parametrize(
    ("temperature", "sizes"),
    [(1.0, (100, 10, 25)), (2.0, (100, 31, 50)), (math.inf, (100, 100, 100))],
)
def test_the_rule_of_mixing(temperature: float, sizes: tuple[int, ...]) -> None:
    data = mixture(temperature)
    source, target = data.sentences("train")
    counts = Counter(text.partition(": ")[0] for text in source)
    assert (counts["double a"], counts["b"], counts["c"]) == sizes
    times = Counter(source)  # every pair comes equally often, give or take one
    for prompt, size, own in zip(data.prompts, sizes, (100, 10, 25), strict=True):
        found = [n for text, n in times.items() if text.startswith(prompt)]
        assert len(found) == own
        assert {size // own, -(-size // own)} >= set(found)
    assert all(
        int(t) == 2 * int(s.rpartition(": ")[2][1:]) for s, t in zip(source, target, strict=True)
    )
    assert mixed(10, 100, 2.0) == math.floor(100 * 0.1**0.5)
    assert len(data.sentences("val").source) == 9  # nothing is repeated there


def test_one_task_alone_has_the_tokenizer_of_all() -> None:
    alone, every = mixture(only="b: "), mixture()
    assert alone.domain.source.fingerprint == every.domain.source.fingerprint
    assert set(alone.sentences("train").source) == {f"b: b{i}" for i in range(10)}
    assert [*alone.of_tasks("val")] == ["b: "]
    assert len(alone.dataset("train")) == 10


def test_figures_of_each_task() -> None:
    data = mixture()
    net = laws.lively(TransformerSeq2Seq(data.spec, width=8, depth=1, heads=2, shared=True))
    view = view_of(data.domain)
    assert isinstance(data.domain, TaskDomain)
    found = view.quality(net, data, "val", 2, 1.0)
    assert [*found] == ["double a: 3 texts, beam 2", "b: 3 texts, beam 2", "c: 3 texts, beam 2"]
    assert view.items(data, "val") == 9
    for figures in found.values():
        assert figures["exact"] == 0.0
        assert figures["low"] == 0.0
        assert 50 < figures["high"] < 60  # Wilson's interval of 0 out of 3
    only = mixture(only="c: ")
    assert [*view.quality(net, only, "val", 2, 1.0)] == ["c: 3 texts, beam 2"]


def test_a_checkpoint_describes_tasks() -> None:
    data = TaskMixture([Dates(20), Dates(30)], ["x: ", "y: "], tokenizer="character", length=48)
    described = json.loads(json.dumps(checkpoints.describe(data)))
    assert [task["init_args"]["pairs"] for task in described["init_args"]["tasks"]] == [20, 30]
    copy = checkpoints.build(described, TokenDataModule)
    assert copy.sentences("train") == data.sentences("train")
    assert copy.provenance == data.provenance


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        (["x: "], {}, r"data\.prompts: 1 prompts for 2 tasks; give one for each"),
        (
            ["x: ", "x: y: "],
            {},
            r"data\.prompts: 'x: y: ' is out of range; choose one that does not begin as",
        ),
        (["x: ", " "], {}, r"data\.prompts: ' ' is out of range; give a text that names the task"),
        (["x: ", "y: "], {"temperature": 0.5}, r"data\.temperature: 0\.5"),
        (
            ["x: ", "y: "],
            {"only": "z: "},
            r"data\.only: 'z: ' is out of range; choose one of 'x: ', 'y: '",
        ),
    ],
)
def test_bad_options(prompts: list[str], options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TaskMixture([Numbered("a", 9), Numbered("b", 9)], prompts, **options)


def labelled(folder: Path, text: str, **options) -> LabelsAsText:
    (folder / "rows.csv").write_text(text)
    named = {name: str(folder / "rows.csv") for name in ("train", "val", "test")}
    given = {"labels": ["0", "1"], "answers": ["negative", "positive"]} | options
    return LabelsAsText(**named, **given)


def test_labels_are_written_as_words(tmp_path: Path) -> None:
    data = labelled(tmp_path, 'label,sentence\n1,"good,\nand long"\n0,bad\n')
    assert data.sentences("train") == Sentences(["good, and long", "bad"], ["positive", "negative"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "label,text\n1,good\n",
            r"line 2 of '.*rows\.csv': there is no 'sentence'; choose from label, text",
        ),
        (
            "label,sentence\n1,good\n2,bad\n",
            r"line 3 of '.*' has the label '2'; data\.labels has '0', '1'",
        ),
        ("label,sentence\n1,\n", r"line 2 of '.*': 'sentence' is empty; give a text"),
        ('label,sentence\n1,"' + "a" * (2**24 + 1) + '"\n', r"line 2 of '.*': field larger than"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        labelled(tmp_path, text).sentences("train")
    with pytest.raises(UserError, match=r"data\.answers: \['a'\] for the labels"):
        labelled(tmp_path, text, answers=["a"])
    with pytest.raises(UserError, match="give each label once"):
        labelled(tmp_path, text, labels=["1", "1"])


def test_long_fields_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    data = labelled(tmp_path, f"\ufefflabel,sentence\n1,{'a' * 200000}\n")
    assert data.sentences("train").source == ["a" * 200000]
