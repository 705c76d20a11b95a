"""What is fuzzed: a strategy of inputs, and a function that reads one, for each reader."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import yaml
from hypothesis import strategies as st

from arlm import checkpoints
from arlm.checkpoints.describe import checksums, entry_checksum
from arlm.core import Spec
from arlm.data.dataset import Rows
from arlm.data.module import TokenDataModule
from arlm.data.pairs import lines_of
from arlm.data.text_files import named_lines, read_text
from arlm.domains.image import read_image
from arlm.domains.music import read_midi
from arlm.inference.runs import open_run
from arlm.reports.run_page import write_run_page
from arlm.sampling import draw, uniform_noise
from arlm.sampling.chain import refuse_masked
from arlm.sampling.processors import (
    History,
    MemoryProcessor,
    apply,
    drawable,
    parse_processors,
)
from arlm.tokenizers import BPETokenizer
from datamodules.mnist import MNIST
from tools.fuzz import options
from tools.fuzz.strategies import damaged, edited, numbers, plain


class Reader(NamedTuple):
    """A reader.

    Args:
        inputs: the strategy.
        read: reads one in the working folder, which holds the originals.
        share: of all examples.
    """

    inputs: st.SearchStrategy
    read: Callable[[Any], object]
    share: float


IMAGES = ("png", "gif", "bmp", "tif", "jpg", "webp")
TENSORS = st.sampled_from(
    (
        torch.zeros(0),
        torch.zeros(2**10, 3),
        torch.full((8,), float("nan")),
        torch.zeros(8, dtype=torch.int64),
        torch.zeros(4, 8, dtype=torch.float16),
        torch.zeros(()),
    )
)
DESCRIBED = ("network", "spec", "domain", "data")  # in JSON
DATA: dict[str, dict[str, Any]] = {
    "text_file.TextFile": {"path": "fox.txt", "length": 8, "batch_size": 4, "tokenizer": "byte"},
    "digits.Digits": {"labels": True, "label_dropout": 0.1, "batch_size": 4, "seed": 0},
    "dates.Dates": {"pairs": 30, "length": 64, "batch_tokens": 512},
    "image_folder.ImageFolder": {"path": "pictures", "size": 8, "channels": 3, "levels": 4, "held_out": 3},
    "parallel_text.ParallelText": {"train": ["left.txt", "right.txt"], "held_out": 0.1, "batch_tokens": 99},
    "text_splits.TextSplits": {"train": "fox.txt", "val": "note.txt", "test": "note.txt", "length": 8},
}  # fmt: skip


def readers(folder: Path) -> Mapping[str, Reader]:
    """Every reader, by name; `folder` holds the originals, and is the working folder when they read."""

    def of(*names: str) -> list[bytes]:
        return [(folder / name).read_bytes() for name in names]

    networks = [torch.load(io.BytesIO(c), weights_only=True) for c in of("rnn.ckpt", "image.ckpt")]
    described = [_described(contents) for contents in networks]
    modules = [{"class_path": f"datamodules.{k}", "init_args": v} for k, v in DATA.items()]
    fragments = [
        yaml.safe_load((folder / name).read_text()) for name in ("data.yaml", "config.yaml")
    ]
    tokenizers = [json.loads(content) for content in of("tokenizer.json")]
    dumped = edited(fragments[:1]).map(lambda tree: yaml.safe_dump(tree).encode())
    edited_fit = edited(fragments[1:]).map(lambda tree: yaml.safe_dump(tree).encode())
    cells = st.lists(
        st.lists(numbers | st.sampled_from(("step", "val/nll", "", ",")), max_size=6), max_size=5
    )
    return {
        "checkpoint, bytes": Reader(damaged(of("rnn.ckpt", "image.ckpt", "pair.ckpt")), _checkpoint, 0.14),
        "checkpoint, entries": Reader(edited(described, plain | TENSORS), _entries, 0.14),
        "tokenizer": Reader(edited(tokenizers) | damaged(of("tokenizer.json")), _tokenizer, 0.12),
        "text": Reader(damaged(of("note.txt", "note.txt.gz", "pairs.txt")), _text, 0.12),
        "image": Reader(st.sampled_from(IMAGES).flatmap(
            lambda suffix: st.tuples(st.just(suffix), damaged(of(f"image.{suffix}")))), _image, 0.12),
        "idx": Reader(damaged(of("labels.idx")), _idx, 0.03),
        "midi": Reader(damaged(of("music.mid")), _midi, 0.08),
        "data file": Reader(dumped | damaged(of("data.yaml")), _data_file, 0.06),
        "configuration": Reader(edited_fit | damaged(of("config.yaml")), _configuration, 0.005),
        "metrics": Reader(damaged(of("metrics.csv")) | cells.map(_csv), _metrics, 0.01),
        "data module": Reader(edited(modules), _data_module, 0.045),
        "processors": Reader(options.processors, _processors, 0.08),
        "options": Reader(options.commands, options.run, 0.05),
    }  # fmt: skip


def _described(contents: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with its descriptions as trees."""
    entry = {k: json.loads(v) if k in DESCRIBED else v for k, v in contents["arlm"].items()}
    return {"state_dict": dict(contents["state_dict"]), "arlm": entry}


def _file(content: bytes, name: str) -> Path:
    path = Path(name)
    path.write_bytes(content)
    return path


def _checkpoint(content: bytes) -> None:
    checkpoints.load(_file(content, "fuzz.ckpt"))


def _entries(contents: Any) -> None:
    """A checkpoint whose checksums are right, whatever its entries are."""
    with suppress(Exception):
        entry = contents["arlm"]
        entry["weights"] = json.dumps(checksums(contents["state_dict"]))
        entry = {k: json.dumps(v) if k in DESCRIBED else v for k, v in entry.items()}
        contents["arlm"] = entry | {"checksum": entry_checksum(entry)}
    file = io.BytesIO()
    torch.save(contents, file)
    _checkpoint(file.getvalue())


def _tokenizer(content: Any) -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    tokenizer = BPETokenizer(read_text(_file(text, "fuzz.json"), "data.tokenizer"))
    tokenizer.decode(tokenizer.encode("the quick brown fox\n\n  é\x00", strict=False))


def _text(content: bytes) -> None:
    path = _file(content, "fuzz.txt")
    list(named_lines(str(path)))
    lines_of(path, "FILE")


def _image(suffix_and_content: tuple[str, bytes]) -> None:
    suffix, content = suffix_and_content
    for channels in (1, 3):
        read_image(_file(content, f"fuzz.{suffix}"), channels, "FILE")


def _idx(content: bytes) -> None:
    """The labels of a data set whose images are intact."""
    _file(content, "FashionMNIST/raw/t10k-labels-idx1-ubyte")
    data = MNIST("FashionMNIST", labels=True, data_dir=".", batch_size=4)
    with patch.dict("datamodules.mnist.IMAGES", {"test": 16}):
        data.dataset("test")


def _midi(content: bytes) -> None:
    read_midi(_file(content, "fuzz.mid"), "FILE")


def _data_file(content: bytes) -> None:
    data = open_run("rnn.ckpt", str(_file(content, "fuzz.yaml"))).data
    data.dataset("val")


def _configuration(content: bytes) -> int:
    return options.run(["fit", "--config", str(_file(content, "fuzz.yaml")), "--print_config"])


def _csv(rows: list[list[str]]) -> bytes:
    return "\n".join(",".join(row) for row in [["step", "val/nll", "seconds"], *rows]).encode()


def _metrics(content: bytes) -> None:
    folder = Path("version_0")
    folder.mkdir(exist_ok=True)
    _file(content, "version_0/metrics.csv")
    write_run_page(folder)


def _data_module(description: Any) -> None:
    data: TokenDataModule = checkpoints.build(description, TokenDataModule)  # type: ignore[type-abstract]
    data.prepare_data()
    dataset = data.dataset("val")
    dataset[Rows(0, torch.arange(min(2, len(dataset))))]


def _processors(text: str) -> None:
    """Processors leave something to draw, in every format of numbers, or name the one that does not."""
    spec = Spec(16, (8,), eos_id=15)
    chain = parse_processors(text)
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        outputs = [torch.linspace(-8, 8, 32, dtype=dtype).view(2, 16)]
        tokens, lengths = torch.zeros(2, 4, dtype=torch.long), torch.tensor([3, 4])
        history = History(tokens, lengths, torch.tensor([1, 0]), spec, torch.tensor([1, 2]))
        for each in chain:
            memory = each.init(2, lengths.device) if isinstance(each, MemoryProcessor) else None
            outputs.append(apply(each, outputs[-1], history, memory))
        drawn = draw(outputs[-1], uniform_noise([1, 2], 1)[:, 0])
        refuse_masked(chain, outputs, ~drawable(outputs[-1], drawn), lengths)
        if outputs[-1].isnan().any():
            raise AssertionError(f"{text!r} makes a nan in {dtype}")
