"""A run in float64 for `test_distributed.py`: `python tests/training/distributed.py OPTIONS.json RESULT.pt`.

The result holds the loss and the gradient's norm of every step, the figures of validation, and the weights.
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from arlm.data.dataset import Rows
from arlm.data.order import BatchOrder, LengthBuckets
from arlm.data.pairs import Sentences
from arlm.data.parallel_module import ParallelDataModule
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.training.module import AutoregressiveModule
from datamodules.text_file import TextFile

NETS: dict[str, Any] = {
    "windows": partial(TransformerLanguageModel, width=16, depth=1, heads=2),
    "pairs": partial(LSTMSeq2Seq, width=12, depth=1, embedding=8),
    "continuous": partial(LSTMLanguageModel, width=12, depth=1, activation_penalty=0.1),
}
NETS["documents"] = NETS["continuous"]


class Pairs(ParallelDataModule):
    """Pairs of 1 to 14 letters."""

    def __init__(self, join: int = 1, **options: Any) -> None:
        super().__init__(tokenizer="byte", **options)
        self.join = join

    def read(self, split: Any) -> Sentences:
        noise = random.Random(split)
        sides: list[list[str]] = [
            ["".join(noise.choices("abcdefgh", k=noise.randint(1, 14))) for _ in range(900)]
            for _ in range(2)
        ]
        return Sentences(*sides)

    def order(self, split: Any) -> BatchOrder:
        return Joined(self.join, super().order(split)) if split == "train" else super().order(split)


class Joined(BatchOrder):
    """Several consecutive batches as one; a rest of fewer is left out."""

    def __init__(self, join: int, order: Any) -> None:
        super().__init__(order.rows, 1, True)
        assert isinstance(order, LengthBuckets)
        self.join, self.order = join, order

    def __len__(self) -> int:
        return len(self.order) // self.join

    def __iter__(self) -> Any:
        self.order.set_epoch(self.epoch)
        batches = [rows.chosen for rows in self.order]
        for first in range(0, self.join * len(self), self.join):
            yield Rows(self.epoch, torch.cat(batches[first : first + self.join]))


class Recorded(AutoregressiveModule):
    """Records the norm of each step's gradient before it is clipped."""

    norms: list[float]

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        gradients = [p.grad.norm() for p in self.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack(gradients).norm()))
        super().configure_gradient_clipping(*args, **kwargs)


class Losses(pl.Callback):
    """The loss of every optimizer step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, module, *_) -> None:
        if trainer.global_step > len(self.values):
            self.values.append(float(trainer.callback_metrics["train/nll"]))


def source(kind: str, options: dict[str, Any]) -> Any:
    """The data module: pairs by length, or this file's text in windows, streams or streams of documents."""
    if kind == "pairs":
        return Pairs(**options)
    text = Path(__file__)
    batching: Any = "windows" if kind == "windows" else "continuous"
    given = {"length": 12, "batching": batching, "separate_documents": kind == "documents"}
    return TextFile(str(text), separator="\n\n", **given, **options)


def train(kind: str, given: dict[str, Any], **flags: Any) -> dict[str, Any]:
    """The result of 20 steps."""
    pl.seed_everything(0, verbose=False)
    data = source(kind, given)
    module = Recorded(data.spec, NETS[kind], optimizer=partial(torch.optim.AdamW, lr=0.01))
    module.norms = []
    losses = Losses()
    trainer = pl.Trainer(
        accelerator="cpu",
        precision="64-true",
        max_steps=20,
        callbacks=[losses],
        log_every_n_steps=1,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=20 * flags.get("accumulate_grad_batches", 1),
        gradient_clip_val=0.2,
        **flags,
    )
    trainer.fit(module, data)
    figures = [float(trainer.callback_metrics[f"val/{name}"]) for name in ("nll", "ppl")]
    found = {"losses": losses.values, "norms": module.norms, "validation": figures}
    return found | {"weights": module.net.state_dict(), "rank": trainer.global_rank}


def main(path: Path, result: Path) -> None:
    """Run what the options ask for."""
    found = train(**json.loads(path.read_text()))
    if found["rank"] == 0:
        torch.save(found, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
