"""A training step of arlm without Lightning, to be timed against a peer's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import nn

from arlm.core import Batch
from arlm.inference.scorer import BatchScorer
from tools.bench.timing import Action


def training_step(
    scorer: BatchScorer,
    batches: Iterator[Batch],
    optimizer: torch.optim.Optimizer,
    bf16: bool,
    clip: float,
) -> Action:
    """A function that makes one training step as AutoregressiveModule does; it returns the scored tokens."""

    def step() -> int:
        batch = next(batches)
        scored = batch.scored.sum()
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            loss = -(scorer(batch).log_prob * batch.scored).sum() / scored
        loss.backward()
        nn.utils.clip_grad_norm_(scorer.net.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        return int(scored)

    return step
