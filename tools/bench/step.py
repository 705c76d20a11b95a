"""A step of ours without Lightning around it, to be timed beside a peer's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import nn

from arlm.core import Batch
from arlm.inference.scorer import Reader
from tools.bench.timing import Action


def training_step(
    reader: Reader,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    bf16: bool,
    clip: float,
) -> Action:
    """Steps on batch after batch, as AutoregressiveModule makes them; each tells the tokens scored."""

    def step() -> int:
        batch = next(batches)
        scored = batch.scored.sum()
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = -(reader(batch) * batch.scored).sum() / scored
        loss.backward()
        nn.utils.clip_grad_norm_(reader.net.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        return int(scored)

    return step
