"""A bidirectional LSTM over masked text, which predicts the masked tokens from both sides.

References:
    | Bidirectional Recurrent Neural Networks (Schuster, Paliwal, 1997) | https://doi.org/10.1109/78.650093
    | context2vec: Learning Generic Context Embedding with Bidirectional LSTM (Melamud et al., 2016)
    | https://aclanthology.org/K16-1006
"""

from __future__ import annotations

from torch import Tensor, nn

from arlm.core import Spec
from arlm.errors import require
from arlm.layers.checks import check_sizes
from arlm.layers.context_reader import ContextReader
from arlm.layers.encoder import LSTMEncoder
from arlm.layers.features import MAX_LOGITS


class BiLSTM(ContextReader):
    """An LSTM reads the context from each end; each layer reads both directions of the one below.

    Args:
        spec: of the data: rows, and their masked form as context.
        width: features of a position: half of them from each direction, so it is even.
        depth: layers.
        dropout: probability of zeroing a feature of embeddings, between layers and of the output, in [0, 1).
        tied: the head's weights are the embeddings of the context's tokens.
        max_logits: logits that scoring holds at once; larger batches are scored in blocks of tokens.

    Shapes: tokens (B, T), which are not read, and context (B, S) -> logits (B, T, V).
    """

    def __init__(
        self,
        spec: Spec,
        width: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        tied: bool = True,
        max_logits: int = MAX_LOGITS,
    ) -> None:
        check_sizes(width=width, depth=depth, dropout=dropout)
        require(width % 2 == 0, "model.net.width", width, "choose an even number")
        super().__init__(spec, width, tied, max_logits)
        self.drop = nn.Dropout(dropout)
        self.encoder = LSTMEncoder(width, width // 2, depth, True, dropout)
        for parameter in (self.embed_source.weight, self.weight):
            if parameter is not None:
                nn.init.normal_(parameter, std=width**-0.5)

    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.drop(self.encoder(self.drop(x), lengths)[0])
