"""The Gumbel watermark: noise from a hash of the last tokens instead of the position.

    token = argmax of log p_v + gumbel(u_v)  =  argmax of log(u_v) / p_v,   u from (key, context, v)

Averaged over keys, a token has the network's own distribution; so does a whole row, if no context draws twice from the
same noise. Therefore a context that occurred before in the row, and the first `width` tokens, draw with the row's own
Gumbel noise. Rows that come to the same context continue alike until one of them repeats a context: in texts of
small variety, choose a wider context.

References:
    | Watermarking of Large Language Models (Aaronson, 2022) | https://scottaaronson.blog/?p=6823
    | Robust Distortion-free Watermarks for Language Models (Kuditipudi et al., 2023) | https://arxiv.org/abs/2307.15593
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.sampling.noise import Noise, gumbel_max, position_keys, uniform
from arlm.sampling.processors import History
from arlm.sampling.watermark import Detection, Watermark, first_occurrences, gamma_tail


@dataclass(frozen=True)
class GumbelWatermark(Noise, Watermark):
    """Gumbel noise that a secret key and the last tokens determine.

    Args:
        key: the secret, any integer.
        width: tokens of a context, at least 1. Wider ones repeat less often, but a replaced token hides the mark of as
            many tokens after it.
    """

    key: int = 0
    width: int = 4

    reads_history = True
    name = "gumbel"
    measures = "S"

    def __post_init__(self) -> None:
        self.check_width()

    def numbers(self, seeds: Tensor, positions: Tensor) -> Tensor:
        return position_keys(seeds, positions)

    def draw(self, logits: Tensor, numbers: Tensor, history: History | None) -> Tensor:
        assert history is not None
        context, marked = self.next_context(history)
        marked = marked & ~self.occurred(context, history)
        return gumbel_max(logits, torch.where(marked, self.keys_of(context), numbers))

    def scores(self, tokens: Tensor) -> Tensor:
        """-log(1 - u) of each token, (T - width,) float64: without the mark, exponential with mean 1."""
        return -torch.log1p(-uniform(self.bits_in(tokens)))

    def detect(self, tokens: Tensor) -> Detection:
        """S, the sum of the scores after contexts that occur for the first time: Gamma(n, 1) without the mark."""
        scores = self.scores(tokens)[first_occurrences(self.keys_in(tokens))]
        total, n = float(scores.sum()), len(scores)
        return Detection(n, total, n, (total - n) / math.sqrt(n), gamma_tail(total, n))
