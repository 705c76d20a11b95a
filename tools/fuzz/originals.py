"""The folder that the fuzzed readers and verbs work on: small networks that were not trained, and intact files."""

from __future__ import annotations

import gzip
import json
import struct
from contextlib import chdir
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from arlm import checkpoints
from arlm.domains.music import Note, write_midi
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.tokenizers import BPETokenizer
from datamodules.dates import Dates
from datamodules.digits import Digits
from datamodules.text_file import TextFile

FOX = "the quick brown fox jumps over the lazy dog. "
METRICS = "step,train/nll,val/nll,seconds,tokens_seen\n1,2.5,,0.1,16\n2,,2.25,0.2,32\n3,2.0,2.125,0.3,48\n"
CONFIG = (
    "seed_everything: 0\ndata: {class_path: Digits, init_args: {batch_size: 4}}\n"
    "model:\n  net: {class_path: PixelCNN, init_args: {width: 4, depth: 1}}\n"
    "  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.001, betas: [0.9, 0.95]}}\n"
    "trainer: {max_steps: 1, accelerator: cpu, limit_val_batches: 1}\n"
    "samples: {n: 0}\n"
)


def write_originals(folder: Path) -> None:
    """Write the networks `rnn`, `gpt`, `image`, `label` and `pair` (.ckpt) and the files that verbs read.

    The networks name their text relative to the folder, which is the working folder of what reads them.
    """
    with chdir(folder):
        _write_networks()
    _write_files(folder)


def _write_networks() -> None:
    Path("fox.txt").write_text(FOX * 400)
    torch.manual_seed(0)
    text = TextFile("fox.txt", tokenizer="byte", length=16, batch_size=4)
    digits, labelled, dates = Digits(), Digits(labels=True), Dates(pairs=60)
    networks = {
        "rnn": (LSTMLanguageModel(text.spec, width=8), text),
        "gpt": (TransformerLanguageModel(text.spec, width=8, heads=2, depth=1), text),
        "image": (PixelCNN(digits.spec, width=4, depth=1), digits),
        "label": (PixelCNN(labelled.spec, width=4, depth=1), labelled),
        "pair": (LSTMSeq2Seq(dates.spec, width=8, embedding=8), dates),
    }
    for name, (net, data) in networks.items():
        checkpoints.save(f"{name}.ckpt", net, data)


def _write_files(folder: Path) -> None:
    (folder / "note.txt").write_text(FOX)
    (folder / "note.txt.gz").write_bytes(gzip.compress(FOX.encode()))
    (folder / "dates.txt").write_text("3 May 2001\n")
    (folder / "pairs.txt").write_text("3 May 2001\t2001-05-03\n")
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    for suffix in ("png", "gif", "bmp", "tif", "jpg", "webp"):
        Image.fromarray(pixels).save(folder / f"image.{suffix}")
    (folder / "metrics.csv").write_text(METRICS)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "data.yaml").write_text(
        "class_path: TextFile\ninit_args: {path: fox.txt, length: 8}\n"
    )
    (folder / "data.json").write_text(json.dumps({"name": "fox", "sha256": "0" * 64}))
    (folder / "music.mid").write_bytes(
        write_midi([[Note(0, 2, 60), Note(4, 1, 62)], [Note(1, 3, 48)]])
    )
    trained = BPETokenizer.train([FOX * 4], 280)
    (folder / "tokenizer.json").write_text(trained.json_text)
    (folder / "left.txt").write_text("".join(f"{i} May 2001\n" for i in range(1, 31)))
    (folder / "right.txt").write_text("".join(f"2001-05-{i}\n" for i in range(1, 31)))
    (folder / "pictures").mkdir(exist_ok=True)
    for index in range(12):
        Image.fromarray(pixels + index).save(folder / "pictures" / f"{index}.png")
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    images = struct.pack(">IIII", 0x803, 16, 28, 28) + bytes(16 * 28 * 28)
    labels = struct.pack(">II", 0x801, 16) + bytes(range(10)) + bytes(6)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    (folder / "labels.idx").write_bytes(labels)
