"""Embedding of a class label, which is added to features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arlm.core import Spec
from arlm.errors import UserError


class ClassEmbedding(nn.Module):
    """The label's term V^T h of the paper, for a one-hot h; zero if the data has no labels.

    It is initialised to zero, so that an untrained network does not depend on the label.

    Args:
        spec: of the data; its context is one token, the class, or None.
        features: number of features that the embedding is added to.

    Shapes: context (B, 1) -> (B, features, 1, 1), to be added to maps. No context means the null class in
    every row, if the data has one: (1, features, 1, 1).

    References:
        | Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016), section 2.3
        | https://arxiv.org/abs/1606.05328
    """

    def __init__(self, spec: Spec, features: int) -> None:
        super().__init__()
        self.table = None
        if spec.context is None:
            return
        if spec.context.kind != "label":
            raise UserError(
                f"model.net: the context must be one class label, not a row of "
                f"{spec.context.length} tokens; choose a network that attends to its context"
            )
        self.null_id = spec.context.null_id
        self.table = nn.Embedding(spec.context.vocab_size, features)
        nn.init.zeros_(self.table.weight)

    def forward(self, context: Tensor | None) -> Tensor | float:
        return 0.0 if self.table is None else self.vector(context)[:, :, None, None]

    def vector(self, context: Tensor | None) -> Tensor:
        """Embedding (B, features), (1, features) of the null class for no context, or a scalar zero."""
        if self.table is None:
            return torch.zeros(())
        if context is None and self.null_id is None:
            raise UserError("context: the network needs a class label; give one for each row")
        return (
            self.table.weight[self.null_id, None] if context is None else self.table(context[:, 0])
        )
