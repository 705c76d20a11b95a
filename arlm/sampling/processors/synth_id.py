"""SynthID: each draw is a tournament of tokens, which random bits of the last tokens and the token decide.

References:
    | Scalable watermarking for identifying large language model outputs (Dathathri et al., 2024)
    | https://doi.org/10.1038/s41586-024-08025-4
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.noise import FEW, mix
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.rows import is_large
from arlm.sampling.watermark import (
    Detection,
    Watermark,
    binomial_tail,
    first_occurrences,
    normal_tail,
)

TOGETHER = 10  # layers
BITS = (np.arange(2**TOGETHER) >> np.arange(TOGETHER)[:, None] & 1).astype(
    np.float64
)  # (TOGETHER, 2**TOGETHER)


@dataclass(frozen=True)
class SynthId(LogitsProcessor, Watermark):
    """p <- p * (1 + g - sum of p g) for each layer, with a bit g of hash(key, last `width` tokens, token).

    A layer is the distribution of the winner of two tokens drawn from p, where the larger g wins and equal ones toss a
    coin. Averaged over keys it is p. The first `width` tokens, and those after a context that occurred before in the
    row, are drawn from p itself, so that the row has the distribution of the network, averaged over keys.

    Order: last; truncation after it would drop tokens that lost.

    Args:
        key: the secret, any integer.
        layers: 0 to 64; 0 changes nothing.
        width: tokens of a context, at least 1. A replaced token hides the mark of as many tokens after it.
        weighted: `detect` weights the layers from 10 down to 1, since later ones find less to decide, and p is that
            of the normal distribution. Otherwise p is exact.
    """

    key: int = 0
    layers: int = 30
    width: int = 4
    weighted: bool = False

    name = "synth_id"
    measures = "mean g"

    def __post_init__(self) -> None:
        require(0 <= self.layers <= 64, "synth_id:layers", self.layers, "choose 0 to 64")
        self.check_width()

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.layers == 0:
            return logits
        context, marked = self.next_context(history)
        marked = marked & ~self.occurred(context, history)
        most = int((logits > -torch.inf).sum(-1).max())
        if most * FEW < logits.shape[-1]:
            kept, tokens = logits.topk(most)
            won = self._won(kept, mix(self.keys_of(context)[:, None] ^ tokens))
            new = torch.full_like(logits, -torch.inf).scatter(-1, tokens, won)
        else:
            tokens = torch.arange(logits.shape[-1], device=logits.device)
            new = self._won(logits, mix(self.keys_of(context)[:, None] ^ tokens))
        return torch.where(marked[:, None], new, logits)

    def _won(self, logits: Tensor, bits: Tensor) -> Tensor:
        """Logits (B, n) after all layers, with the bits (B, n) of the tokens."""
        p = logits.double().softmax(-1)
        if is_large(p) and not p.requires_grad:
            for row, of_row in zip(p.numpy(), bits.numpy(), strict=True):
                play(row, of_row, self.layers)
        else:
            for layer in range(self.layers):
                p = tournament(p, (bits >> layer).bitwise_and_(1))
        return p.log().to(logits.dtype)

    def scores(self, tokens: Tensor) -> Tensor:
        """The bits g of each token, (T - width, layers) int64."""
        layers = torch.arange(self.layers, device=tokens.device)
        return (self.bits_in(tokens)[:, None] >> layers) & 1

    def detect(self, tokens: Tensor) -> Detection:
        """The mean of g after contexts that occur for the first time: of fair bits without the mark."""
        require(self.layers > 0, "synth_id:layers", self.layers, "choose those of the text")
        g = self.scores(tokens)[first_occurrences(self.keys_in(tokens))].double()
        first = 10 if self.weighted else 1
        weights = torch.linspace(first, 1, self.layers, dtype=torch.float64)
        total, n = float(weights.sum()), len(g)
        mean = float(g.mean(0).cpu() @ weights) / total
        z = (mean - 0.5) * 2 * total * math.sqrt(n / float(weights.square().sum()))
        exact = binomial_tail(int(g.sum()), g.numel(), 0.5)
        return Detection(n, mean, 0.5, z, normal_tail(z) if self.weighted else exact)


def tournament(p: Tensor, g: Tensor) -> Tensor:
    """The distribution (..., V) of the winner of two tokens drawn from p (..., V), with g (..., V) of 0 and 1."""
    g = g.to(p.dtype)
    won = torch.linalg.vecdot(p, g).clamp(max=1)  # above 1 by rounding, p could fall below 0
    return p * (g + (1 - won).unsqueeze(-1))


def play(p: np.ndarray, bits: np.ndarray, layers: int) -> None:
    """Overwrite p (V,) by the distribution after all layers of tournaments, with the bits (V,) int64 of the tokens.

    In a few layers, tokens with the same bits win by the same factor. So only sums over those are needed, not each token.
    """
    for first in range(0, layers, TOGETHER):
        count = min(TOGETHER, layers - first)
        pattern = (bits >> first) & (2**count - 1)
        mass = np.bincount(pattern, p, 2**count)
        factor = np.ones(2**count)
        for layer in range(count):
            g = BITS[layer, : 2**count]
            won = g + (1 - min(float(mass @ g), 1.0))
            np.multiply(mass, won, out=mass)
            factor *= won
        np.multiply(p, factor[pattern], out=p)
