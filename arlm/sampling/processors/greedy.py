"""Greedy: only the likeliest token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.selection import argmax


@dataclass(frozen=True)
class Greedy(LogitsProcessor):
    """Mask all but the largest logit; of equal ones the first is kept.

    Order: last; it makes temperature and truncation before it superfluous.
    """

    def rule(self) -> tuple[str, float]:
        return "top_k", 1

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        best = argmax(logits).unsqueeze(-1)
        return torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))
