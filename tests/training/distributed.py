"""Runs in float64 for `test_distributed.py`: `python tests/training/distributed.py OPTIONS.json RESULT.pt`.

The options hold the arguments of `train` by the name of a run; runs with several processes are of one program,
whose imports take longer than all of them. The result holds, of each run, the loss and the gradient's norm of
every step, the figures of validation, and the weights.
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
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import distributed
from torch.distributed.tensor import DTensor

from arlm.data.corpus import preparation
from arlm.data.dataset import Rows
from arlm.data.order import BatchOrder, LengthBuckets
from arlm.data.pairs import Sentences
from arlm.data.parallel_module import ParallelDataModule
from arlm.models.lstm_seq2seq import LSTMSeq2Seq
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.training.callbacks import AtomicCheckpointIO
from arlm.training.module import AutoregressiveModule
from datamodules.instructions import Instructions
from datamodules.text_file import TextFile

NETS: dict[str, Any] = {
    "windows": partial(TransformerLanguageModel, width=16, depth=1, heads=2),
    "pairs": partial(LSTMSeq2Seq, width=12, depth=1, embedding=8),
    "continuous": partial(LSTMLanguageModel, width=12, depth=1, activation_penalty=0.1),
}
NETS["documents"] = NETS["continuous"]
NETS["conversations"] = NETS["windows"]


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
        order = super().order(split)
        return Joined(self.join, order) if split == "train" and self.join > 1 else order


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
    """The data module: pairs or conversations by length, or this file's text in windows, streams or streams of documents."""
    if kind == "pairs":
        return Pairs(**options)
    if kind == "conversations":
        return Instructions(conversations=900, **options)
    text = Path(__file__)
    batching: Any = "windows" if kind == "windows" else "continuous"
    given = {"length": 12, "batching": batching, "separate_documents": kind == "documents"}
    return TextFile(str(text), separator="\n\n", **given, **options)


class Stopped(pl.Callback):
    """Writes a checkpoint after a batch, wherever in an epoch or in accumulated batches that is, and stops there."""

    def __init__(self, batch: int, path: str) -> None:
        self.batch, self.path = batch, path

    def on_train_batch_end(self, trainer, module, *_) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batch:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True
            trainer.fit_loop.epoch_loop.min_steps = trainer.global_step


def train(
    kind: str,
    given: dict[str, Any],
    dropout: float = 0.0,
    stop: int | None = None,
    resume: str | None = None,
    path: str = "",
    average: bool = False,
    **flags: Any,
) -> dict[str, Any]:
    """The result of 20 steps, or up to a batch.

    Args:
        kind, given: the data and its options.
        dropout: of the network.
        stop: number of a batch after which a checkpoint is written to `path`, and the run ends.
        resume: a checkpoint.
        average: whether weights are averaged.
        flags: of the Trainer.
    """
    pl.seed_everything(0, verbose=False)
    data = source(kind, given)
    net = partial(NETS[kind], dropout=dropout)
    module = Recorded(data.spec, net, optimizer=partial(torch.optim.AdamW, lr=0.01))
    module.norms = []
    losses = Losses()
    stops = [] if stop is None else [Stopped(stop, path)]
    averages = [EMAWeightAveraging()] if average else []
    trainer = pl.Trainer(
        accelerator="cpu",
        precision="64-true",
        max_steps=20,
        callbacks=[losses, *stops, *averages],
        plugins=[AtomicCheckpointIO()],
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
    trainer.fit(module, data, ckpt_path=resume)
    figures = [float(trainer.callback_metrics.get(f"val/{name}", 0)) for name in ("nll", "ppl")]
    found = {"losses": losses.values, "norms": module.norms, "validation": figures}
    tokens = trainer.strategy.reduce(torch.tensor(float(module.effort.tokens)), reduce_op="sum")
    weights = {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in module.net.state_dict().items()
    }
    return found | {"tokens": float(tokens), "weights": weights}


def main(path: Path, result: Path) -> None:
    """Train as each entry of the options asks for, and write the results by name."""
    prepared, prepare = [], preparation._prepare

    def counted(pieces: Any, *rest: Any) -> None:
        prepared.append(str(pieces[0].path))
        prepare(pieces, *rest)

    preparation._prepare = counted
    jobs = json.loads(path.read_text())
    found: dict[str, Any] = {name: train(**options) for name, options in jobs.items()}
    counts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(counts, len(prepared))
    if distributed.get_rank() == 0:
        torch.save(found | {"prepared": counts}, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
