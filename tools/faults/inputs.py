"""Sound files of every kind that arlm reads, and the commands that read each of them."""

from __future__ import annotations

import gzip
import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.faults.references import Reference, once

CANARY = "CANARY"  # the file that appears in the working folder when the code of a file is run
TRIAL = ["--trainer.fast_dev_run", "1"]


@dataclass(frozen=True)
class Reader:
    """A command that reads a file: the verb in the table, and its arguments.

    Attributes:
        long: whether its work grows with the file: when its time is over it is stopped, which is no harm.
    """

    verb: str
    arguments: tuple[str, ...]
    long: bool = False


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        name: in the table.
        pattern: of the files, in the folder of all inputs.
        readers: commands that read one.
        sealed: whether every change has to be seen.
    """

    name: str
    pattern: str
    readers: tuple[Reader, ...]
    sealed: bool = True


@dataclass(frozen=True)
class Inputs:
    """All sound files.

    Attributes:
        sound: the folder that holds them.
        place: where they were made, and where copies are read: a prepared corpus belongs to the path of its text.
    """

    sound: Path
    place: Path

    def copy(self) -> Path:
        """Make `place` a copy of the sound folder."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.sound, self.place, symlinks=True)
        return self.place


def reader(verb: str, *arguments: str, long: bool = False) -> Reader:
    """A command; `verb` may name an option after a space, which only the table shows."""
    return Reader(verb, (verb.split()[0], *arguments), long)


TEXT, PIXELS, PAIRS = (f"runs/{name}/best.ckpt" for name in ("windows", "pixels", "pairs"))
FIT = {
    name: reader("fit", "--config", f"{name}.yaml", *TRIAL)
    for name in ("tokenizer", "gz", "images", "idx")
}
RESUME = reader("fit --resume", "--config", "half.yaml", "--trainer.max_steps", "12", "--resume")
SCORE = {
    "text": reader("score", TEXT, "a.txt", "--json"),
    "gz": reader("score", TEXT, "text.gz", "--json"),
    "image": reader("score", PIXELS, "images/0/00.png", "--label", "0", "--json"),
}
TARGETS = (
    Target(
        "checkpoint of a transformer",
        TEXT,
        (
            reader("show", TEXT),
            reader("runs", "runs"),
            reader("sample", TEXT, "-n", "1", "--max-new-tokens", "9"),
            SCORE["text"],
            reader("evaluate", TEXT, "--json"),
        ),
    ),
    Target(
        "checkpoint of a PixelCNN",
        PIXELS,
        (
            reader("show", PIXELS),
            reader("sample", PIXELS, "-n", "1", "--out", "x.png"),
            SCORE["image"],
        ),
    ),
    Target("checkpoint of a translator", PAIRS, (reader("translate", PAIRS, "few.txt"),)),
    Target("last.ckpt of a run", "runs/half/version_0/checkpoints/last.ckpt", (RESUME,)),
    Target(
        "prepared corpus",
        "cache/arlm/prepared/*/[tdc]*.*",
        (RESUME, reader("evaluate", TEXT, "--json")),
    ),
    Target("tokenizer", "tokenizer.json", (FIT["tokenizer"],), sealed=False),
    Target("text", "few.txt", (reader("translate", PAIRS, "few.txt"),), sealed=False),
    Target("gz", "text.gz", (FIT["gz"], SCORE["gz"]), sealed=False),
    Target("picture", "images/0/00.png", (FIT["images"], SCORE["image"]), sealed=False),
    Target("idx labels", "idx/FashionMNIST/raw/*labels*", (FIT["idx"],), sealed=False),
    Target("metrics.csv", "runs/half/version_0/metrics.csv", (RESUME,), sealed=False),
    Target(
        "configuration",
        "runs/half/version_0/config.yaml",
        (reader("fit", "--config", "runs/half/version_0/config.yaml", *TRIAL),),
        sealed=False,
    ),
)


def prepare_inputs(work: Path, wholes: Sequence[Reference]) -> Inputs:
    """Write all inputs to a folder below `work`, with checkpoints of all families."""
    folder = work / "place"
    trained = {whole.name: whole for whole in wholes}
    windows = trained["windows"]
    windows.copy(folder)
    for name in ("windows", "pixels", "pairs"):
        (folder / "runs" / name).mkdir(parents=True)
        shutil.copy(trained[name].checkpoint(), folder / "runs" / name)
    lines = (folder / "a.txt").read_text().splitlines()
    (folder / "few.txt").write_text("\n".join(lines[:4]) + "\n")
    (folder / "text.gz").write_bytes(gzip.compress((folder / "a.txt").read_bytes()))
    write_pictures(folder / "images")
    write_idx(folder / "idx" / "FashionMNIST" / "raw")
    train_tokenizer(folder / "tokenizer.json", lines)
    configuration = windows.family.configuration()
    text = configuration["data"]
    data = {
        "tokenizer": text | {"init_args": text["init_args"] | {"tokenizer": "tokenizer.json"}},
        "half": text,
    }
    pairs = trained["pairs"].family.configuration()
    files = {"train": ["text.gz", "b.txt"]}
    packed = pairs["data"] | {"init_args": pairs["data"]["init_args"] | files}
    write_configuration(folder, "gz", pairs | {"data": packed})
    for name, given in data.items():
        write_configuration(folder, name, configuration | {"data": given})
    pixels = trained["pixels"].family.configuration()
    net = {"class_path": "arlm.models.pixelcnn.PixelCNN", "init_args": {"width": 4, "depth": 1}}
    for name, given in {
        "images": {
            "class_path": "datamodules.image_folder.ImageFolder",
            "init_args": {
                "path": "images",
                "size": 8,
                "channels": 1,
                "labels": True,
                "held_out": 3,
                "batch_size": 4,
            },
        },
        "idx": {
            "class_path": "datamodules.mnist.MNIST",
            "init_args": {"variant": "FashionMNIST", "data_dir": "idx", "labels": True},
        },
    }.items():
        model = pixels["model"] | {"net": net}
        write_configuration(folder, name, pixels | {"data": given, "model": model})
    once(["fit", "--config", "half.yaml", "--trainer.max_steps", "6"], folder)
    folder.rename(work / "sound")
    return Inputs(work / "sound", folder)


def write_configuration(folder: Path, name: str, configuration: dict) -> None:
    """Write the configuration of a run of a name."""
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(configuration | {"run_name": name}))


def write_pictures(folder: Path) -> None:
    """Thirty pictures of 8 x 8 pixels and 17 levels, in two classes."""
    noise = np.random.default_rng(0)
    for index in range(30):
        part = folder / str(index % 2)
        part.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 17, (8, 8), dtype=np.uint8) * 15
        Image.fromarray(pixels).save(part / f"{index:02}.png")


def write_idx(folder: Path) -> None:
    """Black pictures and labels in the sizes of FashionMNIST; the pictures take no room on the disk."""
    folder.mkdir(parents=True)
    noise = random.Random(0)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        header = b"".join(number.to_bytes(4) for number in (0x803, count, 28, 28))
        path = folder.parents[3] / f"{part}-images"
        path.write_bytes(header)
        os.truncate(path, 16 + count * 28 * 28)
        (folder / f"{part}-images-idx3-ubyte").symlink_to(path.resolve())
        labels = bytes(noise.choices(range(10), k=count))
        header = (0x801).to_bytes(4) + count.to_bytes(4)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels)


def train_tokenizer(path: Path, lines: Sequence[str]) -> None:
    """A byte-level BPE of 300 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.save(str(path))
