"""What speeds convergence per second: recipes on Tiny Shakespeare, each for the same wall time.

python -m tools.bench.recipes [NAME ...] [--seconds 65]

Each recipe changes one thing of another. Networks have at most 0.9 M parameters. A cosine takes the
learning rate to zero at the end of the time; the whole validation set (nanoGPT's) is then scored in disjoint
windows of 64, of 128, and with carried state. Needs ARLM_DATA_DIR.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import torch

from arlm.core import Autoregressor, Batch, Spec
from arlm.data.continuous import ContinuousText
from arlm.data.order import BatchOrder
from arlm.data.windows import TextDataset, TextWindows
from arlm.inference.memory import keep_freed_memory
from arlm.inference.scorer import BatchScorer, ScoresChunks, score_split
from arlm.models.rnn import GRULanguageModel, LSTMLanguageModel, RNNLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.training.optimizers import parameter_groups
from arlm.training.optimizers import Muon
from datamodules.text_file import TextFile
from tools.bench.step import training_step
from tools.bench.timing import machine

GPT = partial(TransformerLanguageModel, width=128, depth=4, heads=4, bias=False, tied=True)
LSTM = partial(LSTMLanguageModel, width=392, depth=1, embedding=96)


def adamw(lr: float, beta: float = 0.95) -> Callable[[list], torch.optim.Optimizer]:
    """As the configurations have it."""
    return partial(torch.optim.AdamW, lr=lr, betas=(0.9, beta), weight_decay=0.1, fused=True)


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    net: Callable[[Spec], Autoregressor]
    optimizer: Callable[[list], torch.optim.Optimizer]
    length: int
    rows: int
    bf16: bool = True
    compile: bool = False


NANOGPT = Recipe(partial(GPT, positions="learned"), adamw(1e-3, 0.99), 64, 12, bf16=False)
LONGER = Recipe(GPT, adamw(4e-3), 128, 16, compile=True)
MUON = replace(LONGER, optimizer=partial(Muon, lr=0.02))
CARRIED = Recipe(LSTM, adamw(5e-3), 64, 32)
RECIPES = {
    "gpt: nanoGPT's recipe": NANOGPT,
    "gpt: + bf16 and compiled": replace(NANOGPT, bf16=True, compile=True),
    "gpt: + rate 4e-3": replace(NANOGPT, bf16=True, compile=True, optimizer=adamw(4e-3)),
    "gpt: + rotary, 16 rows of 128": LONGER,
    "gpt: + Muon": MUON,
    "gpt: + SwiGLU, RMSNorm": replace(
        MUON, net=partial(GPT, norm="rms", mlp="swiglu", mlp_width=344)
    ),
    "lstm 1 x 392, carried": CARRIED,
    "lstm: in float32": replace(CARRIED, bf16=False),
    "lstm: 2 x 216": replace(CARRIED, net=partial(LSTMLanguageModel, width=216, depth=2)),
    "lstm: Muon": replace(CARRIED, optimizer=partial(Muon, lr=0.02)),
    "gru: 2 x 248": replace(CARRIED, net=partial(GRULanguageModel, width=248, depth=2)),
    "rnn: 2 x 420": replace(
        CARRIED, net=partial(RNNLanguageModel, width=420, depth=2), optimizer=adamw(2e-3)
    ),
}


def forever(dataset: TextDataset, rows: int) -> Iterator[Batch]:
    """Batches of epoch after epoch."""
    order = BatchOrder(len(dataset), rows, True, streams=dataset.streams)
    epoch = 0
    while True:
        order.set_epoch(epoch)
        for chosen in order:
            yield dataset[chosen]
        epoch += 1


def train(recipe: Recipe, data: TextFile, seconds: float) -> tuple[Autoregressor, int]:
    """A network after so many seconds, and the tokens that it saw."""
    torch.manual_seed(0)
    net = recipe.net(data.domain.spec(recipe.length))
    optimizer = recipe.optimizer(parameter_groups(net))
    rates = [group["lr"] for group in optimizer.param_groups]
    corpus, length = data.corpus("train"), recipe.length
    dataset: TextDataset = TextWindows(corpus, data.domain, length)
    if isinstance(net, ScoresChunks):
        dataset = ContinuousText(corpus, data.domain, length, recipe.rows)
    scorer, batches = BatchScorer(net, recipe.compile), forever(dataset, recipe.rows)
    train_on = training_step(scorer, batches, optimizer, recipe.bf16, 1.0)
    started, seen = time.perf_counter(), 0
    for step in count():
        done = (time.perf_counter() - started) / seconds
        if done >= 1:
            break
        factor = min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        seen += train_on()
    return net.eval(), seen


def figures(net: Autoregressor, data: TextFile) -> dict[str, float]:
    """Nats a character of the whole validation set, by protocol."""
    corpus = data.corpus("val")
    ways: dict[str, TextDataset] = {
        str(n): TextWindows(corpus, data.domain, n, n)
        for n in (64, 128)
        if net.max_length is None or n <= net.max_length
    }
    if isinstance(net, ScoresChunks):
        ways["carried"] = ContinuousText(corpus, data.domain, 256, 8, 256)
    found = {}
    for name, dataset in ways.items():
        rows = dataset.streams or 32
        order = BatchOrder(len(dataset), rows, False, streams=dataset.streams)
        scores = score_split(net, dataset, order)
        assert len(scores.nats) == len(corpus)
        found[name] = float(scores.nats.mean())
    return found


def main() -> None:
    """Train each and print its line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("names", nargs="*", default=list(RECIPES), help=", ".join(RECIPES))
    parser.add_argument("--seconds", type=float, default=65.0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as `fit` does
    print(machine())
    data = TextFile("tinyshakespeare/input.txt", "character", one_held_out=True)
    for name in options.names:
        net, seen = train(RECIPES[name], data, options.seconds)
        size = sum(p.numel() for p in net.parameters())
        nats = ", ".join(f"{way} {value:.4f}" for way, value in figures(net, data).items())
        print(f"{name:32} {size:,} parameters, {seen / 1e6:.2f} M tokens: {nats}", flush=True)


if __name__ == "__main__":
    main()
