"""Green list (KGW): a hash of the last tokens makes a share of the vocabulary likelier, and counting finds it.

References:
    | A Watermark for Large Language Models (Kirchenbauer et al., 2023)
    | https://arxiv.org/abs/2301.10226
    | Three Bricks to Consolidate Watermarks for Large Language Models (Fernandez et al., 2023): exact tests, and each
    | pair of context and token once | https://arxiv.org/abs/2308.00113
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.noise import mix
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.watermark import Detection, Watermark, binomial_tail, first_occurrences


@dataclass(frozen=True)
class GreenList(LogitsProcessor, Watermark):
    """logits + delta where hash(key, last `width` tokens, token) < gamma * 2**64; see `arlm.sampling.watermark`.

    Each token is green by itself, without a permutation of the vocabulary: gamma is the expected share.

    Order: last; truncation after it would drop tokens that are not green.

    Args:
        delta: nats, 0 to 100; 0 changes nothing.
        gamma: share of the vocabulary that is green, above 0 and below 1.
        key: the secret, any integer.
        width: tokens of a context, at least 1. A replaced token hides the mark of as many tokens after it.
    """

    delta: float
    gamma: float = 0.5
    key: int = 0
    width: int = 1

    name = "green_list"
    measures = "green"

    def __post_init__(self) -> None:
        require(0 <= self.delta <= 100, "green_list", self.delta, "choose 0 to 100")
        fits = 0 < self.gamma < 1
        require(fits, "green_list:gamma", self.gamma, "choose above 0 and below 1")
        self.check_width()

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.delta == 0:
            return logits
        context, marked = self.next_context(history)
        tokens = torch.arange(logits.shape[-1], device=logits.device)
        green = self._green(mix(self.keys_of(context)[:, None] ^ tokens))
        if green.device.type == "cpu":  # torch converts one by one
            green = torch.from_numpy(green.numpy().astype(np.float32))
        nats = self.delta * marked.to(logits.dtype)
        return logits + green.to(logits.dtype).mul_(nats[:, None])

    def _green(self, bits: Tensor) -> Tensor:
        """Whether bits, taken as numbers from 0 to 2**64 - 1, are below gamma * 2**64."""
        if bits.device.type == "cpu":
            return torch.from_numpy(
                bits.numpy().view(np.uint64) < np.uint64(int(self.gamma * 2**64))
            )
        lowest = -(2**63)  # the order of int64 is that of the unsigned numbers without this bit
        return (bits ^ lowest) < int(self.gamma * 2**64) + lowest

    def scores(self, tokens: Tensor) -> Tensor:
        """Whether each token is green, (T - width,) bool."""
        return self._green(self.bits_in(tokens))

    def detect(self, tokens: Tensor) -> Detection:
        """The number of green tokens, each pair of context and token once: Binomial(n, gamma) without the mark."""
        green = self.scores(tokens)[first_occurrences(self.bits_in(tokens))]
        hits, n = int(green.sum()), len(green)
        mean = self.gamma * n
        z = (hits - mean) / math.sqrt(mean * (1 - self.gamma))
        return Detection(n, hits, mean, z, binomial_tail(hits, n, self.gamma))
