"""ContextReader: networks of masked text, whose logits depend on the context alone.

    context (B, S), with masks --encode--> (B, S, width) --transform--> features --linear map--> logits (B, T, V)

Position t of the row is predicted from position t of what was encoded. So the logits are causal, and the tokens of a
row are independent of one another given the context: a row drawn token by token would be drawn from the marginals.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arlm.core import Spec
from arlm.errors import UserError, require
from arlm.layers.features import FeatureAutoregressor
from arlm.states import Prefix


class ContextReader(FeatureAutoregressor):
    """A network that reads a context as long as its rows, and not the rows. A subclass writes `encode`.

    A context shorter than the row counts as padded. Rows of more than one token are not drawn by `generate`:
    `arlm.sampling.unmask` draws them, and changes the context in between.

    Args:
        spec: of the data; its context has at least as many positions as a row.
        width: features of each position.
        tied: the head's weights are the embeddings of the context's first V tokens, which then are those of the row.
        max_logits: logits that scoring holds at once.
    """

    uses_context = True

    def __init__(self, spec: Spec, width: int, tied: bool, max_logits: int) -> None:
        super().__init__(spec, max_logits)
        context = spec.context
        name = type(self).__name__
        if context is None or context.kind != "sequence" or context.pad_id is None:
            raise UserError(
                f"model.net: {name} reads a context, which the data does not have; choose masked text, such as "
                "configs/data/docs_masked.yaml"
            )
        if spec.length > context.length:
            raise UserError(
                f"model.net: {name} reads position t of the context to predict token t, but rows have {spec.length} "
                f"tokens and contexts {context.length}; choose masked text, such as configs/data/docs_masked.yaml"
            )
        same = spec.fingerprint == context.fingerprint and context.vocab_size >= spec.vocab_size
        mend = "omit it: the context has not the tokens of the row"
        require(not tied or same, "model.net.tied", True, mend)
        self.pad_id, self.longest = context.pad_id, context.length
        self.embed_source = nn.Embedding(context.vocab_size, width)
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(spec.vocab_size))
        self.weight = None if tied else nn.Parameter(torch.empty(spec.vocab_size, width))

    @abstractmethod
    def encode(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Features (B, S, width) of contexts, from their embeddings (B, S, width), zero at padding.

        Args:
            x: the embeddings.
            lengths: (B,) tokens of each context without padding.
        """

    def context_features(self, context: Tensor) -> Tensor:
        """Features (B, S, width) of contexts (B, S); what they are at padding has no meaning."""
        return self._encoded(context)

    def features(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        length = tokens.shape[1]
        if context is None:
            raise UserError(
                f"context: {type(self).__name__} reads a masked text; give one for each row, or use `arlm fill`"
            )
        if context.shape[1] < length:
            context = F.pad(context, (0, length - context.shape[1]), value=self.pad_id)
        return self.transform(self._encoded(context)[:, :length])

    def _encoded(self, context: Tensor) -> Tensor:
        inside = context != self.pad_id
        lengths = inside.sum(1)
        if not bool(lengths.all()):
            raise UserError("context: a row has no token; give at least one")
        if context.shape[1] > self.longest:
            if bool(inside[:, self.longest :].any()):
                raise UserError(
                    f"context: {int(lengths.max())} tokens do not fit the network, which reads {self.longest}; "
                    "give a shorter text, or train with a larger length"
                )
            context, inside = context[:, : self.longest], inside[:, : self.longest]
        x = self.embed_source(context.where(inside, 0)) * inside[..., None]
        return self.encode(x, lengths)

    def logits(self, features: Tensor) -> Tensor:
        return F.linear(features, *self.linear_map())

    def linear_map(self) -> tuple[Tensor, Tensor]:
        if self.weight is not None:
            return self.weight, self.bias
        return self.embed_source.weight[: self.spec.vocab_size], self.bias

    def start(
        self, batch: int, length: int, context: Tensor | None = None
    ) -> tuple[Tensor, Prefix | Any]:
        if length > 1:
            raise UserError(
                f"model.net: {type(self).__name__} predicts the tokens of a row independently of one another, so it does "
                "not write text from left to right; use `arlm fill`, or arlm.sampling.unmask"
            )
        return super().start(batch, length, context)
