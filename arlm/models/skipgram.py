"""Skip-gram word vectors, with the softmax over the whole vocabulary.

References:
    | Efficient Estimation of Word Representations in Vector Space (Mikolov et al., 2013), skip-gram
    | https://arxiv.org/abs/1301.3781
    | Distributed Representations of Words and Phrases and their Compositionality (Mikolov et al., 2013), equation 2;
      their negative sampling approximates this softmax | https://arxiv.org/abs/1310.4546
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arlm.core import Spec
from arlm.errors import UserError
from arlm.layers.checks import check_sizes
from arlm.layers.features import MAX_LOGITS, FeatureAutoregressor


class SkipGram(FeatureAutoregressor):
    """p(neighbour | word) = softmax over the vocabulary of <output vector, vector of the word>.

    A row is one token, a neighbour, and its context the word in the middle (`datamodules.neighbours`). The vectors of
    words are `embed`, which `arlm.adapters.with_embeddings` copies into other networks.

    Args:
        spec: of the data.
        width: features of a vector.
        max_logits: logits that scoring holds at once.

    Shapes: tokens (B, 1), which are not read, and context (B, 1) -> logits (B, 1, V).
    """

    uses_context = True

    def __init__(self, spec: Spec, width: int = 100, max_logits: int = MAX_LOGITS) -> None:
        super().__init__(spec, max_logits)
        check_sizes(width=width)
        if spec.context is None or spec.context.kind != "label" or spec.length != 1:
            raise UserError(
                "model.net: SkipGram predicts a neighbour of a word, which the data does not have; choose data such "
                "as configs/data/neighbours.yaml"
            )
        self.null_id = spec.context.null_id
        self.embed = nn.Embedding(spec.context.vocab_size, width)
        self.head = nn.Linear(width, spec.vocab_size, bias=False)
        nn.init.uniform_(self.embed.weight, -0.5 / width, 0.5 / width)  # as word2vec.c
        nn.init.normal_(self.head.weight, std=width**-0.5)

    def features(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        if context is None:
            if self.null_id is None:
                raise UserError("context: none given, but the network needs the word in the middle")
            context = torch.full_like(tokens[:, :1], self.null_id)
        return self.embed(context.expand(len(tokens), 1))[:, : tokens.shape[1]]
