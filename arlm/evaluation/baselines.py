"""Baselines that a network must beat: uniform, per-pixel histogram, unigram, n-gram of tokens.

Each is a normalised distribution with `log_prob(tokens (B, T)) -> (B, T)` in nats, like a network's.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from arlm.core import Spec
from arlm.errors import UserError


class Uniform:
    """The uniform distribution: log2 V bits per token."""

    def __init__(self, spec: Spec) -> None:
        self.vocab_size = spec.vocab_size

    def log_prob(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T) nats."""
        return torch.full(tokens.shape, -math.log(self.vocab_size), dtype=torch.float64)


class Histogram:
    """An independent distribution for each position of a row: counts with additive smoothing.

    Args:
        rows: (N, T) training tokens.
        vocab_size: V.
        smoothing: added to every count; 0 gives infinite nats to tokens that training lacks at a position.
    """

    def __init__(self, rows: Tensor, vocab_size: int, smoothing: float = 1.0) -> None:
        length = rows.shape[1]
        cells = rows.long() + torch.arange(length) * vocab_size
        counts = torch.bincount(cells.flatten(), minlength=length * vocab_size).double()
        counts = counts.view(length, vocab_size) + smoothing
        self.table = (counts / counts.sum(-1, keepdim=True)).log()  # (T, V)

    def log_prob(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T) nats."""
        return self.table.expand(len(tokens), -1, -1).gather(-1, tokens[..., None]).squeeze(-1)


class NGram:
    """Interpolated Kneser-Ney n-gram; order 1 is the unigram, interpolated with the uniform.

    p_k(w | u) = (max(c(u w) - D_k, 0) + D_k N(u) p_{k-1}(w | u')) / c(u), where c counts occurrences in
    the highest order and distinct left neighbours below, N(u) is the number of distinct w after u, u' is
    u without its first token, and D_k = n1 / (n1 + 2 n2) from the counts of counts. For an unseen u,
    p_k(w | u) = p_{k-1}(w | u'); at the start of a row u holds only the tokens that there are.

    Args:
        stream: (N,) training tokens.
        order: n, tokens in an n-gram.
        vocab_size: V; V ** order must fit into 63 bits.

    References:
        | An Empirical Study of Smoothing Techniques for Language Modeling (Chen, Goodman, 1998)
        | https://aclanthology.org/P96-1041
    """

    def __init__(self, stream: Tensor, order: int, vocab_size: int) -> None:
        if order < 1 or vocab_size**order >= 2**63:
            raise UserError(
                f"order: {order}-grams of {vocab_size} tokens do not fit into 63 bits; choose a lower order"
            )
        self.order, self.vocab_size = order, vocab_size
        tokens = stream.numpy().astype(np.int64)[None]
        levels = [
            np.unique(self._codes(tokens, k), return_counts=True) for k in range(1, order + 1)
        ]
        self.levels = []
        for k, (grams, counts) in enumerate(levels, start=1):
            if k < order:  # distinct left neighbours instead of occurrences
                grams, counts = np.unique(levels[k][0] % vocab_size**k, return_counts=True)
            once, twice = (counts == 1).sum(), (counts == 2).sum()
            discount = once / (once + 2 * twice) if once and twice else 0.5
            contexts, group = np.unique(grams // vocab_size, return_inverse=True)
            totals, kinds = np.bincount(group, counts), np.bincount(group)
            self.levels.append((grams, counts, contexts, totals, kinds, discount))

    def _codes(self, tokens: np.ndarray, k: int) -> np.ndarray:
        """Each k-gram of (B, T) as one number, (B, T - k + 1)."""
        width = tokens.shape[1] - k + 1
        codes = np.zeros((len(tokens), width), dtype=np.int64)
        for i in range(k):
            codes = codes * self.vocab_size + tokens[:, i : i + width]
        return codes

    def log_prob(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T) nats."""
        values = tokens.numpy()
        p = np.full(values.shape, 1 / self.vocab_size)
        for k, (grams, counts, contexts, totals, kinds, discount) in enumerate(
            self.levels, start=1
        ):
            if k > values.shape[1]:
                break
            codes = self._codes(values, k)
            lower = p[:, k - 1 :]
            count = np.where(*_look_up(grams, codes, counts), 0)
            seen, total = _look_up(contexts, codes // self.vocab_size, totals)
            _, kind = _look_up(contexts, codes // self.vocab_size, kinds)
            higher = (np.maximum(count - discount, 0) + discount * kind * lower) / total
            p = np.concatenate([p[:, : k - 1], np.where(seen, higher, lower)], axis=1)
        return torch.from_numpy(np.log(p))


def _look_up(
    keys: np.ndarray, wanted: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each wanted key is among the sorted keys, and its value if so."""
    index = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return keys[index] == wanted, values[index]
