"""Every token is scored once; batches are a pure function of seed and epoch; files are verified."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
import torch

from arlm.data.corpus import Corpus, in_memory
from arlm.data.dataset import FixedRows, Rows
from arlm.data.folders import Split
from arlm.data.module import TokenDataModule
from arlm.data.order import BatchOrder, ResumableLoader
from arlm.data.text_module import TextDataModule
from arlm.data.windows import TextWindows
from arlm.domains import ImageDomain, TextDomain
from arlm.errors import UserError
from arlm.tokenizers import CharacterTokenizer
from datamodules import python_docs, python_stdlib
from datamodules.digits import Digits
from datamodules.digits import images as digit_images
from datamodules.mnist import MNIST, binarized
from datamodules.python_docs import PythonDocs
from datamodules.python_stdlib import PythonStdlib
from datamodules.text_file import TextFile

LETTERS = TextDomain(CharacterTokenizer("abcdefgh"))


def test_training_windows_are_disjoint_and_differ_between_epochs() -> None:
    text = torch.arange(1000)
    domain = TextDomain(CharacterTokenizer(map(chr, range(1000))))
    windows = TextWindows(Corpus(text), domain, 16, seed=3)
    everything = torch.arange(len(windows))
    first = windows[Rows(0, everything)].tokens
    assert len(first.unique()) == first.numel()
    assert (first.diff(dim=1) == 1).all()
    assert torch.equal(windows[Rows(0, everything)].tokens, first)
    assert not torch.equal(windows[Rows(1, everything)].tokens, first)


def test_batch_order_is_a_function_of_seed_and_epoch() -> None:
    order = BatchOrder(10, 3, training=True, seed=1)
    first = torch.cat([rows.chosen for rows in order])
    assert len(order) == 3
    assert len(first.unique()) == 9
    assert torch.equal(torch.cat([rows.chosen for rows in order]), first)
    order.set_epoch(1)
    assert not torch.equal(torch.cat([rows.chosen for rows in order]), first)
    evaluation = BatchOrder(10, 3, training=False)
    assert [rows.chosen.tolist() for rows in evaluation][-1] == [9]


@pytest.mark.parametrize("training", [True, False])
def test_processes_share_out_all_rows_once(training: bool) -> None:
    parts = [BatchOrder(26, 4, training, rank=rank, world_size=3) for rank in range(3)]
    seen = torch.cat([rows.chosen for part in parts for rows in part])
    assert [len(list(part)) for part in parts] == [len(part) for part in parts]
    assert len(seen.unique()) == len(seen) == (24 if training else 26)


def test_a_loader_resumes_where_it_stopped() -> None:
    domain = ImageDomain(4, 2, 2)
    dataset = FixedRows(torch.randint(4, (20, 4)), domain)

    def loader() -> ResumableLoader:
        return ResumableLoader(dataset, BatchOrder(20, 3, training=True))

    whole = [batch.tokens for batch in loader()]
    stopped = loader()
    iterator = iter(stopped)
    for _ in range(2):
        next(iterator)
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    rest = [batch.tokens for batch in resumed]
    assert torch.equal(torch.cat(rest), torch.cat(whole[2:]))
    assert len(list(resumed)) == len(whole)


class Letters(TextDataModule):
    """A text of `size` letters in every split."""

    def __init__(self, size: int, length: int = 8, **arguments) -> None:
        super().__init__(length, **arguments)
        self.size = size
        self.domain = LETTERS

    def read(self, split: Split) -> Corpus:
        return in_memory([("abcdefgh" * self.size)[: self.size]], self.domain.tokenizer)


def text(data: TextDataModule, split: Split) -> str:
    return data.domain.decode(data.corpus(split).whole())


def test_too_little_text_is_refused() -> None:
    for size in (0, 1, 7):
        with pytest.raises(UserError, match=f"has {size} tokens.*smaller length"):
            Letters(size).loader("train")


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UserError, match=r"data.batch_size: 9 is larger .* choose at most 4"):
        Letters(40, batch_size=9).loader("train")
    assert len(Letters(40, batch_size=9).loader("val")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "data.batch_size: 0"),
        ({"length": 1}, "data.length: 1"),
        ({"batching": "lanes"}, "data.batching: lanes .* choose windows or continuous"),
        ({"stride": 9}, "data.stride: 9 .* 1 to 8"),
    ],
)
def test_bad_sizes_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Letters(40, **arguments)


def check_splits(data: TokenDataModule) -> None:
    for split in ("train", "val", "test"):
        batch = next(iter(data.loader(split)))
        assert batch.tokens.dtype == torch.long
        assert batch.tokens.shape == (
            min(data.batch_size, len(data.dataset(split))),
            data.spec.length,
        )
        assert 0 <= batch.tokens.min() <= batch.tokens.max() < data.spec.vocab_size
        assert batch.scored.dtype == torch.bool
    assert data.provenance["name"]


def test_digits() -> None:
    data = Digits()
    check_splits(data)
    sizes = [len(data.dataset(split)) for split in ("train", "val", "test")]
    assert sizes == [1437, 180, 180]
    assert data.spec.vocab_size == 17
    assert torch.cat([data.dataset(s).tokens for s in ("train", "val", "test")]).shape == (1797, 64)
    assert hashlib.md5(digit_images().numpy().tobytes()).hexdigest().startswith("fa70cba1")


def paragraphs(text: str) -> list[str]:
    return [p.strip() for p in text.split("\n\n")]


def test_python_docs_are_cut_by_document_and_quotations_leave_training() -> None:
    data = PythonDocs()
    check_splits(data)
    assert data.spec.vocab_size == 97
    texts = {split: text(data, split) for split in ("train", "val", "test")}
    assert len(texts["train"]) > 300_000
    for held in ("val", "test"):
        assert 15_000 < len(texts[held]) < 80_000
        long = [p for p in paragraphs(texts[held]) if len(p) >= python_docs.QUOTED]
        assert len(long) > 50
        assert not set(long) & set(paragraphs(texts["train"]))
    assert texts["train"] == text(PythonDocs(seed=5), "train")


@pytest.mark.slow
def test_python_stdlib_is_cut_by_file() -> None:
    data = PythonStdlib()
    check_splits(data)
    names = {
        split: {n for n in data.files if python_stdlib.split_of(n, python_stdlib.PARTS) == split}
        for split in ("train", "val", "test")
    }
    assert sum(map(len, names.values())) == len(data.files) > 400
    assert all(len(n) > 5 for n in names.values())
    assert not any("test" in Path(n).parts for n in data.files)


def test_text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_bytes("äb\r\nc".encode() * 100)
    (tmp_path / "b.txt").write_text("xyz" * 100)
    data = TextFile([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")], "character", length=16)
    check_splits(data)
    assert data.spec.vocab_size == 8
    whole = "".join(text(data, split) for split in ("train", "val", "test"))
    assert whole == "äb\r\nc" * 100 + "xyz" * 100
    same = TextFile(str(tmp_path / "b.txt"), one_held_out=True)
    assert text(same, "val") == text(same, "test")
    monkeypatch.setenv("ARLM_DATA_DIR", str(tmp_path))
    assert TextFile("b.txt").size == 300


def test_bad_text_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "one.txt").write_text("a")
    (tmp_path / "binary.txt").write_bytes(b"ab\xff" * 9)
    for name, message in [
        ("missing.txt", "neither in .* ARLM_DATA_DIR"),
        ("empty.txt", "has 0 bytes"),
        ("one.txt", "has 1 bytes"),
        ("binary.txt", r"not UTF-8 text \(byte 2\)"),
    ]:
        with pytest.raises(UserError, match=message):
            TextFile(str(tmp_path / name)).loader("train")
    with pytest.raises(
        UserError, match=r"data.tokenizer: .* is neither one of byte, character nor"
    ):
        TextFile(str(tmp_path / "binary.txt"), tokenizer=str(tmp_path / "no.json"))


def test_binarisation_is_a_draw_with_the_grey_value() -> None:
    grey = torch.tensor([[0, 64, 128, 255]], dtype=torch.uint8).expand(20_000, 4)
    share = binarized(grey, torch.Generator().manual_seed(0)).double().mean(0)
    expected = torch.tensor([0, 64 / 255, 128 / 255, 1]).double()
    # standard deviation at most 0.0036
    assert (share - expected).abs().max() < 0.015
    assert share[0] == 0
    assert share[3] == 1


def test_mnist(data_dir: Path) -> None:
    def train_batch(epoch: int, **arguments) -> torch.Tensor:
        dataset = MNIST(data_dir=str(data_dir), **arguments).dataset("train")
        return dataset[Rows(epoch, torch.arange(8))].tokens

    data = MNIST(data_dir=str(data_dir))
    check_splits(data)
    assert [len(data.dataset(s)) for s in ("train", "val", "test")] == [50_000, 10_000, 10_000]
    assert not torch.equal(train_batch(0), train_batch(1))
    assert torch.equal(train_batch(1), train_batch(1))
    assert torch.equal(train_batch(0, binarize="fixed"), train_batch(1, binarize="fixed"))
    hard = train_batch(0, binarize="threshold")
    grey = train_batch(0, levels=256)
    assert torch.equal(hard, (grey >= 128).long())
    assert MNIST(data_dir=str(data_dir), levels=256).spec.vocab_size == 256
    other = MNIST(data_dir=str(data_dir), seed=9)
    assert torch.equal(other.dataset("test").tokens, data.dataset("test").tokens)
    # the floor of the anchors: 45.53 nats of coin flips on the test images
    p = MNIST(data_dir=str(data_dir), levels=256).dataset("test").tokens.double() / 255
    flips = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum(1).mean()
    assert flips.item() == pytest.approx(45.53, abs=0.01)


def test_corrupt_mnist_is_refused(tmp_path: Path, data_dir: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    name = "t10k-images-idx3-ubyte"
    intact = (data_dir / "MNIST" / "raw" / name).read_bytes()
    flipped = bytearray(intact)
    flipped[-1] ^= 1
    for damaged in (b"", intact[:5000], b"junk" + intact[4:], bytes(flipped)):
        (raw / name).write_bytes(damaged)
        with pytest.raises(UserError, match=r"data.data_dir: .* is corrupt .* delete it"):
            MNIST(data_dir=str(tmp_path)).read("test")


def test_missing_mnist_without_a_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    def refuse(*_, **__):
        raise RuntimeError("Error downloading")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", refuse)
    with pytest.raises(UserError, match=r"is missing and the download failed .* ARLM_DATA_DIR"):
        MNIST(data_dir=str(tmp_path)).read("test")


def test_a_worker_says_nothing_when_its_reader_is_gone(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    dataset = FixedRows(torch.zeros(20, 4, dtype=torch.long), ImageDomain(4, 2, 2))
    loader = ResumableLoader(dataset, BatchOrder(20, 3, training=True), num_workers=1)
    assert loader.worker_init_fn is not None
    loader.worker_init_fn(0)
    for error in (ConnectionResetError("planted"), EOFError("planted")):
        sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == ""
    sys.excepthook(ValueError, ValueError("planted"), None)
    assert capsys.readouterr().err == "ValueError: planted\n"
