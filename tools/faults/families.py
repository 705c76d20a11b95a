"""Small runs of each family, each with the options that a resume has to restore: 24 steps in about a second.

Every run validates in the middle of epochs and saves its last checkpoint every three steps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

STEPS = 24
EMA = {"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.9}}
NTASGD = {
    "class_path": "arlm.training.callbacks.AverageOncePlateaued",
    "init_args": {"patience": 1},
}


@dataclass(frozen=True)
class Family:
    """A kind of network with its kind of data.

    Attributes:
        name: in the table.
        data, net: class path and arguments.
        batches: in an optimizer step.
        callbacks: that have a state of their own.
        every: batches between two validations.
    """

    name: str
    data: tuple[str, dict[str, Any]]
    net: tuple[str, dict[str, Any]]
    batches: int = 1
    callbacks: tuple[dict[str, Any], ...] = ()
    every: int = 7

    def configuration(self) -> dict[str, Any]:
        """The configuration of its run, for `fit --config`."""
        (data, data_args), (net, net_args) = self.data, self.net
        return {
            "seed_everything": 0,
            "run_name": "run",
            "data": {"class_path": data, "init_args": data_args},
            "model": {
                "net": {"class_path": net, "init_args": net_args},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            },
            "trainer": {
                "accelerator": "cpu",
                "max_steps": STEPS,
                "max_epochs": -1,
                "val_check_interval": self.every,
                "check_val_every_n_epoch": None,
                "limit_val_batches": 2,
                "log_every_n_steps": 1,
                "accumulate_grad_batches": self.batches,
                "callbacks+": list(self.callbacks),
            },
            "checkpoint": {"every_n_train_steps": 3},
            "samples": {"n": 0},
        }

    def prepare(self, folder: Path) -> list[str]:
        """Write its data and its configuration; returns the command that trains it there."""
        folder.mkdir(parents=True, exist_ok=True)
        write_texts(folder)
        (folder / "run.yaml").write_text(yaml.safe_dump(self.configuration()))
        return ["fit", "--config", "run.yaml"]


TEXT = {"path": "text.txt", "length": 16, "batch_size": 8, "held_out": 0.2}
FAMILIES = (
    Family(
        "continuous streams",
        ("datamodules.text_file.TextFile", TEXT | {"batching": "continuous", "streams": 2}),
        ("arlm.models.rnn.LSTMLanguageModel", {"width": 8, "depth": 1, "dropout": 0.2}),
        callbacks=(EMA,),
    ),
    Family(
        "windows",
        ("datamodules.text_file.TextFile", TEXT),
        (
            "arlm.models.transformer.TransformerLanguageModel",
            {"width": 8, "depth": 1, "heads": 2, "dropout": 0.2},
        ),
        batches=2,
        callbacks=(NTASGD,),
        every=9,
    ),
    Family(
        "pairs",
        (
            "datamodules.parallel_text.ParallelText",
            {
                "train": ["a.txt", "b.txt"],
                "tokenizer": "character",
                "min_count": 1,
                "length": 40,
                "batch_tokens": 300,
                "held_out": 0.1,
            },
        ),
        ("arlm.models.lstm_seq2seq.LSTMSeq2Seq", {"width": 8, "embedding": 8, "dropout": 0.2}),
        batches=2,
        every=9,
    ),
    Family(
        "pixels",
        ("datamodules.digits.Digits", {"batch_size": 16, "labels": True, "label_dropout": 0.1}),
        (
            "arlm.models.pixelcnn.PixelCNN",
            {"width": 4, "depth": 1, "head_width": 8, "dropout": 0.2},
        ),
        callbacks=(EMA,),
    ),
)


def write_texts(folder: Path) -> None:
    """A text of 8 kB, and 400 pairs of sentences of different lengths."""
    noise = random.Random(0)
    words = [a + b for a in "bdfglmnprst" for b in ("an", "el", "io", "or")]
    lines = [" ".join(noise.choices(words, k=noise.randint(1, 8))) for _ in range(400)]
    (folder / "text.txt").write_text("\n".join(lines))
    (folder / "a.txt").write_text("\n".join(lines) + "\n")
    (folder / "b.txt").write_text("\n".join(line[::-1] for line in lines) + "\n")
