"""What comes out of `Steps`: blocks of tokens, their log-probabilities, and on request their alternatives.

Two distributions have a part in a draw: that of the network, and the processed one, from which the token comes:

    network's logits  ->  processors, no padding  ->  noise  ->  token
    log_prob              processed_log_prob
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.core import log_softmax
from arlm.errors import require


class Alternatives(NamedTuple):
    """The K tokens that the network finds likeliest at each position, in order."""

    tokens: Tensor  # (B, n, K) int64
    log_prob: Tensor  # (B, n, K) nats under the network
    processed_log_prob: Tensor  # (B, n, K) nats after the processors; -inf for what they dropped


class Block(NamedTuple):
    """Tokens that were drawn in one resume of `Steps`."""

    rows: Tensor  # (B,) int64, the row numbers that `begin` was given
    positions: Tensor  # (B,) int64, position of the first token of each row
    tokens: Tensor  # (B, n) int64
    lengths: Tensor  # (B,) int64, how many of the n tokens each row took; 0 if it had ended
    log_prob: Tensor  # (B, n) nats under the network without processors; 0 beyond `lengths`
    processed_log_prob: Tensor | None = None  # (B, n) nats after the processors; see `Details`
    top: Alternatives | None = None  # of each position; undefined beyond `lengths`

    def cloned(self) -> Block:
        """Copies of all parts."""
        return Block(
            self.rows.clone(),
            self.positions.clone(),
            self.tokens.clone(),
            self.lengths.clone(),
            self.log_prob.clone(),
            None if self.processed_log_prob is None else self.processed_log_prob.clone(),
            None if self.top is None else Alternatives(*(part.clone() for part in self.top)),
        )


@dataclass(frozen=True)
class Details:
    """What is computed of each token beside its log-probability: by default nothing, which costs nothing.

    Args:
        processed: log-probability under the processed distribution, from which the token was drawn; that of a
            forced token may be -inf.
        top: number of alternatives of each token, K, with their log-probabilities under both distributions.
    """

    processed: bool = False
    top: int = 0

    def __bool__(self) -> bool:
        return self.processed or self.top > 0

    def check(self, vocab_size: int) -> None:
        """Refuse more alternatives than there are tokens."""
        require(0 <= self.top <= vocab_size, "top", self.top, f"choose 0 to {vocab_size}")

    def of(
        self,
        logits: Sequence[Tensor],
        processed: Sequence[Tensor],
        tokens: Tensor,
        inside: Tensor,
    ) -> tuple[Tensor | None, Alternatives | None]:
        """Details of n positions.

        Args:
            logits: n times (B, V), of the network.
            processed: n times (B, V), after the processors.
            tokens: (B, n) int64.
            inside: (B, n) bool, whether the token is part of its row.
        """
        if not self:
            return None, None
        after = log_softmax(torch.stack(list(processed), dim=1))
        nats = top = None
        if self.processed:
            own = after.gather(-1, tokens[..., None]).squeeze(-1).double()
            nats = own.where(inside, 0.0)
        if self.top:
            before, best = log_softmax(torch.stack(list(logits), dim=1)).topk(self.top)
            top = Alternatives(best, before.double(), after.gather(-1, best).double())
        return nats, top


NOTHING = Details()


class Collected:
    """The details of whole rows, from their blocks.

    Args:
        details: that the blocks have.
        forced: (B, T), of the shape of the rows.
    """

    def __init__(self, details: Details, forced: Tensor) -> None:
        self.processed = self.top = None
        if details.processed:
            self.processed = torch.zeros(forced.shape, dtype=torch.float64, device=forced.device)
        if details.top:
            empty = torch.zeros(*forced.shape, details.top, device=forced.device)
            self.top = Alternatives(empty.long(), empty.double(), empty.double())

    def add(self, block: Block) -> None:
        """Write the parts of a block to their rows and columns; rows have the numbers 0 to B - 1."""
        if self.processed is None and self.top is None:
            return
        count = block.tokens.shape[1]
        inside = torch.arange(count, device=block.lengths.device) < block.lengths[:, None]
        row, offset = inside.nonzero(as_tuple=True)
        at = block.rows[row], block.positions[row] + offset
        if self.processed is not None and block.processed_log_prob is not None:
            self.processed[at] = block.processed_log_prob[inside]
        if self.top is not None and block.top is not None:
            for whole, part in zip(self.top, block.top, strict=True):
                whole[at] = part[inside]

    @property
    def parts(self) -> tuple[Tensor | None, Alternatives | None]:
        """Log-probabilities (B, T) and alternatives (B, T, K), or None."""
        return self.processed, self.top
