"""Time that Lightning's Trainer adds to a step, against a plain loop on the same small network and batches.

python -m tools.bench.lightning_overhead [--steps 600] [--repeats 5]

The Trainer runs with the defaults of arlm's command line (`arlm.cli.trainer.TRAINER_DEFAULTS`), the CSV
logger, the checkpoint callback and the schedule; it saves every third epoch, as
`configs/images/digits_pixelcnn.yaml` does. The loop does the same arithmetic: loss, backward, clipping, AdamW,
schedule.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from functools import partial

import pytorch_lightning as pl
import torch
from torch.optim import AdamW

from arlm.cli.trainer import TRAINER_DEFAULTS
from arlm.models.pixelcnn import PixelCNN
from arlm.training.module import AutoregressiveModule
from arlm.training.progress import LineProgress
from arlm.training.schedules import WarmupCosine
from datamodules.digits import Digits
from tools.bench.timing import interleaved, machine, median


def module(data: Digits) -> AutoregressiveModule:
    """A small network: 3 blocks of 8 features."""
    torch.manual_seed(0)
    net = partial(PixelCNN, width=8, depth=3)
    return AutoregressiveModule(data.spec, net, optimizer=partial(AdamW, fused=True))


class Clock(pl.Callback):
    """Measures the time from the first step to the last, without the Trainer's set-up."""

    def on_train_start(self, *_) -> None:
        self.started = time.perf_counter()

    def on_train_end(self, *_) -> None:
        self.seconds = time.perf_counter() - self.started


def with_trainer(steps: int, data: Digits, folder: str) -> float:
    """Seconds that the Trainer takes for `steps` steps."""
    flags = {k: v for k, v in TRAINER_DEFAULTS.items() if k not in ("logger", "plugins")}
    clock = Clock()
    trainer = pl.Trainer(
        **flags | {"accelerator": "cpu"},
        max_steps=steps,
        logger=pl.loggers.CSVLogger(folder),
        callbacks=[
            clock,
            LineProgress(1e9),
            pl.callbacks.ModelCheckpoint(folder, every_n_epochs=3),
        ],
        limit_val_batches=0,
        enable_progress_bar=False,
    )
    trainer.fit(module(data), data)
    return clock.seconds


def with_loop(steps: int, data: Digits) -> float:
    """Seconds that a plain loop takes for `steps` steps."""
    net = module(data).net
    optimizer = AdamW(net.parameters(), fused=True)
    schedule = WarmupCosine(optimizer, steps)
    loader = data.loader("train")
    started, done = time.perf_counter(), 0
    for epoch in range(steps):
        loader.order.set_epoch(epoch)
        for batch in loader:
            loss = -(net.log_prob(batch.tokens) * batch.scored).sum() / batch.scored.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                return time.perf_counter() - started
    raise AssertionError("unreachable: an epoch has at least one batch")


def main() -> None:
    """Print milliseconds per step, and the difference in ms and per cent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    data = Digits()
    seconds: dict[str, list[float]] = {"plain loop": [], "Trainer": []}
    with tempfile.TemporaryDirectory() as folder:
        interleaved(
            {
                "plain loop": lambda: seconds["plain loop"].append(with_loop(options.steps, data)),
                "Trainer": lambda: seconds["Trainer"].append(
                    with_trainer(options.steps, data, folder)
                ),
            },
            options.repeats,
        )
    milliseconds = {k: median(v[1:]) / options.steps * 1000 for k, v in seconds.items()}
    difference = milliseconds["Trainer"] - milliseconds["plain loop"]
    print(machine())
    print(
        f"plain loop {milliseconds['plain loop']:.2f} ms a step, Trainer {milliseconds['Trainer']:.2f} ms: ",
        end="",
    )
    print(f"{difference:+.2f} ms, {100 * difference / milliseconds['plain loop']:+.1f} %")


if __name__ == "__main__":
    main()
