"""Pairs of sentences: read, encoded, batched by length; refused in one line where they do not fit."""

from __future__ import annotations

import datetime
import gzip
import json
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from arlm import checkpoints
from arlm.data.dataset import Rows
from arlm.data.order import LengthBuckets, buckets
from arlm.data.pairs import Pairs
from arlm.domains import Domain, TranslationDomain
from arlm.errors import UserError
from arlm.tokenizers import BPETokenizer, ByteTokenizer, SentenceTokenizer
from datamodules.dates import Dates, Format, formats
from datamodules.multi30k import Multi30k
from datamodules.parallel_text import ParallelText

GERMAN = [f"ein Hund läuft {i} mal um das große Haus ." for i in range(60)]
ENGLISH = [f"A dog runs around the house {i} times." for i in range(60)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two aligned files in the working folder, one of them packed."""
    monkeypatch.chdir(tmp_path)
    Path("train.de").write_text("\n".join(GERMAN) + "\n")
    Path("train.en.gz").write_bytes(gzip.compress("\n".join(ENGLISH).encode()))
    return tmp_path


def parallel(**arguments) -> ParallelText:
    return ParallelText(["train.de", "train.en.gz"], **{"vocab_size": 300} | arguments)


@given(st.text())
def test_round_trip(text: str) -> None:
    domain = TranslationDomain(ByteTokenizer())
    try:
        tokens = domain.encode(text)
    except UserError:
        assert any("\ud800" <= c <= "\udfff" for c in text)
        return
    assert domain.decode(tokens) == text
    assert tokens[-1] == domain.eos_id
    assert domain.units(tokens).sum() == len(text.encode()) + 1
    more = torch.cat([tokens, torch.randint(domain.vocab_size, (5,))])
    assert domain.decode(more) == text  # what follows the end is not read


def test_no_text_holds_the_end() -> None:
    domain = TranslationDomain(BPETokenizer.train(["<eos> <pad> </s>"], 300))
    spec = domain.spec(9)
    assert spec.eos_id == spec.vocab_size - 1
    assert spec.context.pad_id == spec.context.vocab_size - 1
    assert (domain.encode("<eos> <pad> </s>") == spec.eos_id).sum() == 1
    assert domain.decode(domain.encode("<eos> <pad> </s>")) == "<eos> <pad> </s>"
    copy = checkpoints.build(json.loads(json.dumps(checkpoints.describe(domain))), Domain)
    assert copy.spec(9) == spec


def test_sentence_words() -> None:
    tokenizer = SentenceTokenizer.train(["Ein Hund, ein Hund .", "ein Haus."], min_count=2)
    assert set(tokenizer.words) == {"ein", "Hund", "."}
    domain = TranslationDomain(tokenizer)
    tokens = domain.encode("ein Hund bellt.")
    assert domain.decode(tokens) == "ein Hund <unk>."
    assert [domain.pieces(tokens, domain.target_tokenizer)[i] for i in (0, -1)] == ["ein", "<end>"]


def test_batches_are_filled_up_and_scored_to_their_ends(files: Path) -> None:
    data = parallel()
    pairs, spec = data.dataset("train"), data.spec
    batch = pairs[Rows(0, torch.tensor([0, 30, 5]))]
    for row, i in enumerate([0, 30, 5]):
        ours, source = batch.tokens[row][batch.scored[row]], batch.context[row]
        assert data.domain.decode(batch.tokens[row]) == data.sentences("train").target[i]
        assert ours[-1] == spec.eos_id
        assert (ours == spec.eos_id).sum() == 1
        real = source[source != spec.context.pad_id]
        assert data.domain.source.decode(real) == data.sentences("train").source[i]
    assert (batch.tokens[~batch.scored] == spec.eos_id).all()


def test_positions_are_the_order_of_the_file(files: Path) -> None:
    pairs = parallel().dataset("train")
    everything = torch.cat(list(pairs.targets))
    rows = Rows(0, torch.tensor([7, 2, 19]))
    batch = pairs[rows]
    positions = pairs.positions(rows)[batch.scored]
    assert torch.equal(everything[positions], batch.tokens[batch.scored])


def ragged(seed: int = 0, rows: int = 200) -> Pairs:
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 30, (rows, 2), generator=random).tolist()
    domain = TranslationDomain(ByteTokenizer())
    sides = zip(
        *[[torch.zeros(n, dtype=torch.long) for n in pair] for pair in lengths], strict=True
    )
    return Pairs(*sides, domain)


def test_every_row_once_within_the_budget() -> None:
    pairs = ragged()
    for training in (True, False):
        order = LengthBuckets(pairs.lengths, 120, training, seed=3, rank=0, world_size=1)
        batches = [rows.chosen for rows in order]
        assert len(batches) == len(order)
        assert torch.cat(batches).sort().values.tolist() == list(range(len(pairs)))
        for chosen in batches:
            assert len(chosen) * pairs.lengths[chosen].max() <= 120
    _, sizes = buckets(
        pairs.lengths, 10
    )  # less than the length of many rows, each then a batch of its own
    assert sum(sizes) == len(pairs)
    assert min(sizes) == 1


def test_order_is_a_function_of_seed_and_epoch_and_resumes() -> None:
    pairs = ragged()

    def epoch(number: int, seed: int = 3, skip: int = 0, **process) -> list[list[int]]:
        process = {"rank": 0, "world_size": 1} | process
        order = LengthBuckets(pairs.lengths, 120, True, seed, **process)
        order.set_epoch(number)
        order.skip = skip
        return [rows.chosen.tolist() for rows in order]

    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)
    assert epoch(0) != epoch(0, seed=4)
    assert epoch(1, skip=7) == epoch(1)[7:]
    assert {frozenset(b) for b in epoch(0)} != {
        frozenset(b) for b in epoch(1)
    }  # ties change positions
    halves = [epoch(2, rank=r, world_size=2) for r in (0, 1)]
    assert len(halves[0]) == len(halves[1])
    assert not {i for b in halves[0] for i in b} & {i for b in halves[1] for i in b}


@pytest.mark.parametrize("budget", [10, 120])
def test_processes_divide_the_rows_of_one_with_their_joint_budget(budget: int) -> None:
    lengths = ragged().lengths

    def epoch(budget: int, rank: int, world_size: int) -> list[list[int]]:
        order = LengthBuckets(lengths, budget, True, 3, rank, world_size)
        return [rows.chosen.tolist() for rows in order]

    parts = [epoch(budget, rank, 3) for rank in range(3)]
    assert all(len(part) == len(parts[0]) for part in parts)
    for step in zip(*parts, strict=True):
        counts = [len(chosen) for chosen in step]
        assert min(counts) >= 1
        assert max(counts) <= min(counts) + 1
    joint = [sorted(chain(*step)) for step in zip(*parts, strict=True)]
    assert sorted(chain(*joint)) == list(range(len(lengths)))
    if budget == 120:
        assert joint == [sorted(chosen) for chosen in epoch(3 * budget, 0, 1)]


def test_padding_of_multi30k(data_dir: Path) -> None:
    data = Multi30k(data_dir=str(data_dir))
    cells = real = 0
    for rows in data.order("train"):
        lengths = data.dataset("train").lengths[rows.chosen]
        cells += len(lengths) * int(lengths.amax(0).sum())
        real += int(lengths.sum())
    assert data.words("test") == 11877
    assert 1 - real / cells < 0.1


def test_tokenizers_know_the_training_side_only(files: Path) -> None:
    Path("test.de").write_text("Quark\n")
    Path("test.en").write_text("zzyzx\n")
    plain = parallel(tokenizer="word", min_count=1)
    more = parallel(tokenizer="word", min_count=1, test=["test.de", "test.en"])
    assert set(plain.domain.source.words) <= set(more.domain.source.words)
    assert "zzyzx" not in more.domain.target_tokenizer.words
    held = {w for split in ("val", "test") for w in plain.sentences(split).target[0].split()}
    numbers = {w for w in held if w.isdigit()}
    assert numbers
    assert not numbers & set(plain.domain.target_tokenizer.words)


def test_joint_and_separate_tokenizers(files: Path) -> None:
    joint, separate_documents = parallel().domain, parallel(joint=False).domain
    assert joint.target is None
    assert joint.pad_id == joint.eos_id
    assert (joint.spec(9).joint, separate_documents.spec(9).joint) == (True, False)
    assert torch.equal(joint.encode("Hund")[:-1], joint.encode_source("Hund"))
    assert separate_documents.target is not None
    assert separate_documents.source != separate_documents.target


def test_lowercase(files: Path) -> None:
    for kind in ("bpe", "word", "character"):
        data = parallel(lowercase=True, tokenizer=kind, min_count=1)
        domain = data.domain
        assert torch.equal(domain.encode("A DOG RUNS"), domain.encode("a dog runs"))
        assert domain.decode(domain.encode("A DOG RUNS")) == "a dog runs"


def test_splits_share_no_pair(files: Path) -> None:
    data = parallel(held_out=0.1)
    parts = [set(data.sentences(split).source) for split in ("train", "val", "test")]
    assert sorted(map(len, parts)) == [6, 6, 48]
    assert len(set().union(*parts)) == 60


def test_long_pairs(files: Path, capsys) -> None:
    Path("train.de").write_text("\n".join([*GERMAN[:-1], "lang " * 60]) + "\n")
    data = parallel(length=40)
    assert len(data.dataset("train")) == len(data.sentences("train").source) - 1
    assert "1 of 56 training pairs are longer than 40" in capsys.readouterr().err
    Path("train.de").write_text("\n".join(["lang " * 60, *GERMAN[1:]]) + "\n")  # in validation
    with pytest.raises(UserError, match=r"data.length: pair 1 of the val split has"):
        parallel(length=40).dataset("val")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo\n", r"train.de' has 60 lines and 'train.en.gz' 2"),
        (b"\n".join([b"x"] * 30 + [b""] + [b"x"] * 29), r"line 31 of 'train.en.gz' is empty"),
        (b"\xff\n", r"is not UTF-8 text \(byte 0\)"),
        (b"\x1f\x8bbroken", r"cannot read 'train.en.gz'"),
        (b"", r"is empty; give one sentence per line"),
    ],
)
def test_files_that_do_not_fit(files: Path, content: bytes, message: str) -> None:
    Path("train.en.gz").write_bytes(content)
    with pytest.raises(UserError, match=message):
        parallel().sentences("train")


def test_arguments_that_do_not_fit(files: Path) -> None:
    with pytest.raises(UserError, match=r"data.train: 'train.de' is not a pair"):
        ParallelText("train.de")
    with pytest.raises(UserError, match=r"data.vocab_size: 10"):
        parallel(vocab_size=10)
    with pytest.raises(UserError, match=r"data.train: 'nothing' is neither in"):
        ParallelText(["nothing", "train.en.gz"]).sentences("train")
    with pytest.raises(UserError, match=r"data.tokenizer"):
        parallel(tokenizer="bpee").domain  # noqa: B018


def test_languages_of_multi30k(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="put Multi30k's task 1 files there"):
        Multi30k(data_dir=str(tmp_path))
    folder = tmp_path / "multi30k"
    folder.mkdir()
    for name in ("train", "val", "test_2016_flickr"):
        (folder / f"{name}.de").write_text("eins\nzwei\n")
        (folder / f"{name}.en.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    data = Multi30k(data_dir=str(tmp_path), source="en", target="de")
    assert data.sentences("test").source == ["one", "two"]
    with pytest.raises(UserError, match=r"data.target: 'fr' is not a language of train.*de, en"):
        Multi30k(data_dir=str(tmp_path), target="fr")
    with pytest.raises(UserError, match=r"no files test_2017.*; choose from test_2016_flickr"):
        Multi30k(data_dir=str(tmp_path), test="test_2017").sentences("test")


def test_formats_of_dates_are_held_out_and_their_parts_known() -> None:
    splits = formats()
    groups = [set(splits[split]) for split in ("train", "val", "test")]
    assert all(groups)
    assert sum(map(len, groups)) == len(set().union(*groups))
    for field in Format._fields:
        known = {getattr(style, field) for style in groups[0]}
        assert {getattr(style, field) for group in groups for style in group} == known
    data = Dates(pairs=50)
    assert data.sentences("test") == Dates(pairs=9, seed=5).sentences("test")
    assert all(len(iso) == 10 for iso in data.sentences("train").target)
    written = Format("{day} {month} {year}", "the {th} of", "{mon}.", "'{yy}", "on {weekday}, ")
    assert written.write(datetime.date(2017, 3, 22)) == "on Wednesday, the 22nd of Mar. '17"
    assert written.write(datetime.date(2017, 3, 12)) == "on Sunday, the 12th of Mar. '17"
