"""Networks that can score a long text chunk by chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from arlm.core import Autoregressor, Scores, token_log_prob
from arlm.states import ChunkState


class StatefulAutoregressor(Autoregressor):
    """An autoregressor that scores a text of any length in chunks, and passes a state to the next chunk.

    Used for truncated back-propagation through time, and for evaluation without windows. `BatchScorer` in
    `arlm.inference.scorer` keeps the state between batches, detached:

        chunk 0          chunk 1          chunk 2
        x0 x1 x2 x3  ->  x4 x5 x6 x7  ->  x8 ...       -> is a ChunkState: the last token and the state before it
    """

    @property
    def max_length(self) -> None:
        return None

    def score_chunk(
        self,
        tokens: Tensor,
        chunk_state: ChunkState | None = None,
        context: Tensor | None = None,
    ) -> tuple[Scores, ChunkState]:
        """Score a chunk of longer rows.

        Args:
            tokens: (B, S) int64, the tokens that follow the chunk which returned `chunk_state`.
            chunk_state: as returned with the previous chunk, or None at the start of the rows.
            context: (B, S') int64, or None; used at the start of the rows only.

        Returns:
            scores (B, S), equal to those of one pass over the long rows, and the state for the next chunk.
        """
        if chunk_state is None:
            logits, state = self.start(len(tokens), tokens.shape[1], context)
            logits = logits[:, None]
            if tokens.shape[1] > 1:
                rest, state = self.advance(tokens[:, :-1], state)
                logits = torch.cat([logits, rest], dim=1)
        else:
            inputs = torch.cat([chunk_state.last, tokens[:, :-1]], dim=1)
            logits, state = self.advance(inputs, chunk_state.state)
        return Scores(token_log_prob(logits, tokens)), ChunkState(tokens[:, -1:], state)
