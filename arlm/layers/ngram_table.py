"""The k-grams of a text as sorted tables, for n-gram models.

A k-gram is stored as one number, its code w_1 V^(k-1) + ... + w_k. Codes are sorted, so the k-grams that
continue one history lie side by side, and every look-up is a binary search:

    grams      aab   aba   abc   bab    codes of trigrams, (M,)
    counts     1     2     1     2
    histories  aa    ab          ba     codes of the first two tokens, (H,)
    firsts     0     1           3      the history's first entry in grams
    kinds      1     2           1      how many it has
    totals     1     3           2      sum of their counts
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

BEYOND = 2**63 - 1  # above every code; it ends each table, so that a binary search stays inside


class NGramTable(NamedTuple):
    """All k-grams of a text, for one k, with interpolated absolute discounting; BEYOND or 0 ends each tensor."""

    vocab_size: int
    discount: float  # D_k
    grams: Tensor  # (M + 1,) int64
    counts: Tensor  # (M + 1,) float64
    histories: Tensor  # (H + 1,) int64
    firsts: Tensor  # (H + 1,) int64
    kinds: Tensor  # (H + 1,) int64
    totals: Tensor  # (H + 1,) float64

    @classmethod
    def of(cls, grams: Tensor, counts: Tensor, vocab_size: int) -> Self:
        """The table of codes (M,) int64, sorted and distinct, and their counts (M,)."""
        histories, group, kinds = torch.unique_consecutive(
            grams // vocab_size, return_inverse=True, return_counts=True
        )
        totals = torch.zeros(len(histories), dtype=torch.float64, device=grams.device)
        totals.index_add_(0, group, counts.double())
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        return cls(
            vocab_size,
            once / (once + 2 * twice) if once and twice else 0.5,
            _ended(grams, BEYOND),
            _ended(counts.double()),
            _ended(histories, BEYOND),
            _ended(kinds.cumsum(0) - kinds),
            _ended(kinds),
            _ended(totals),
        )

    def interpolate(self, lower: Tensor, history: Tensor, tokens: Tensor) -> Tensor:
        """Probability of one token after each history, given that of the level below.

        Args:
            lower: (...) float64.
            history: (...) codes of k - 1 tokens; a negative number is no history.
            tokens: (...) int64.
        """
        _, _, total, weight = self._find(history)
        codes = (history * self.vocab_size + tokens).contiguous()
        entry = torch.searchsorted(self.grams, codes)
        known = (self.grams[entry] == codes) & (history >= 0)
        return lower * weight + ((self.counts[entry] - self.discount) / total).where(known, 0.0)

    def interpolate_all(self, lower: Tensor, history: Tensor) -> Tensor:
        """Probability of every token after histories (N,), from `lower` (N, V), which is overwritten."""
        group, seen, total, weight = self._find(history)
        kinds = self.kinds[group].where(seen, 0)
        rows = torch.arange(len(kinds), device=kinds.device).repeat_interleave(kinds)
        within = torch.arange(len(rows), device=kinds.device) - (kinds.cumsum(0) - kinds)[rows]
        entry = self.firsts[group][rows] + within
        lower *= weight[:, None]
        tokens = self.grams[entry] % self.vocab_size
        lower[rows, tokens] += (self.counts[entry] - self.discount) / total[rows]
        return lower

    def _find(self, history: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For each history u: index, whether it was seen, c(u), and the weight D_k N(u) / c(u) of p_{k-1}."""
        history = history.contiguous()
        group = torch.searchsorted(self.histories, history)
        seen = self.histories[group] == history
        total = self.totals[group].where(seen, 1.0)
        weight = self.discount * self.kinds[group].double() / total
        return group, seen, total, weight.where(seen, 1.0)


def _ended(table: Tensor, end: int = 0) -> Tensor:
    return torch.cat([table, table.new_tensor([end])])
