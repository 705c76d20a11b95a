"""LSTM language model.

References:
    | Long Short-Term Memory (Hochreiter, Schmidhuber, 1997)
    | https://www.bioinf.jku.at/publications/older/2604.pdf
    | Recurrent Neural Network Regularization (Zaremba, Sutskever, Vinyals, 2014)
    | https://arxiv.org/abs/1409.2329
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arlm.core import Autoregressor, Spec, State, check_sizes


@dataclass(frozen=True)
class LSTMState(State):
    """Output and cell of every layer after the last token."""

    hidden: Tensor  # (B, depth, width)
    cell: Tensor  # (B, depth, width)


class LSTMLanguageModel(Autoregressor):
    """h_t, c_t = LSTM(embed(x_{t-1}), h_{t-1}, c_{t-1}); logits_t = W h_t + b; x_{-1} is a learned start.

    Dropout lies on the inputs, between the layers and before the head, never on the recurrence
    (Zaremba et al.).
    Rows may be of any length: the state carries all of the past.

    Args:
        spec: what the data is; any shape, read in raster order.
        width: size of embedding, hidden state and cell.
        depth: stacked LSTM layers.
        dropout: probability of zeroing a feature, in [0, 1).

    Shapes: tokens (B, T) -> logits (B, T, V).
    """

    def __init__(self, spec: Spec, width: int = 256, depth: int = 2, dropout: float = 0.0) -> None:
        super().__init__(spec)
        check_sizes(width=width, depth=depth, dropout=dropout)
        self.width, self.depth, self.dropout = width, depth, dropout
        self.embed = nn.Embedding(spec.vocab_size, width)
        self.start_vector = nn.Parameter(torch.zeros(width).normal_(std=0.1))
        between = dropout if depth > 1 else 0.0
        self.lstm = nn.LSTM(width, width, depth, batch_first=True, dropout=between)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, spec.vocab_size)

    @property
    def max_length(self) -> None:
        return None

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        start = self.start_vector.expand(len(tokens), 1, -1)
        inputs = torch.cat([start, self.embed(tokens)[:, :-1]], dim=1)
        return self._read(inputs, None)[0]

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, LSTMState]:
        logits, state = self._read(self.start_vector.expand(batch, 1, -1), None)
        return logits[:, 0], state

    def advance(self, tokens: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        return self._read(self.embed(tokens), state)

    def _read(self, inputs: Tensor, state: LSTMState | None) -> tuple[Tensor, LSTMState]:
        """Inputs (B, S, width) -> logits (B, S, V) and the state after them."""
        carried = None
        if state is not None:  # nn.LSTM wants the layers first
            carried = tuple(s.transpose(0, 1).contiguous() for s in (state.hidden, state.cell))
        outputs, (hidden, cell) = self.lstm(self.drop(inputs), carried)
        new_state = LSTMState(hidden.transpose(0, 1), cell.transpose(0, 1))
        return self.head(self.drop(outputs)), new_state
