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

from arlm.core import Autoregressor, Spec
from arlm.errors import UserError, require
from arlm.layers.features import FeatureAutoregressor


class ContextOnly(Autoregressor):
    """A network whose logits depend on the context alone: rows of several tokens are drawn by `unmask` only."""

    uses_context = True

    def check_drawn(self, length: int) -> None:
        """Raise a UserError for rows of more than one token, which would be drawn from their marginals."""
        if length > 1:
            raise UserError(
                f"model.net: {type(self).__name__} predicts the tokens of a row independently of one another, so it "
                "does not write text from left to right; use `arlm fill`, or arlm.sampling.unmask"
            )

    def start(self, batch: int, length: int, context: Tensor | None = None) -> tuple[Tensor, Any]:
        self.check_drawn(length)
        return super().start(batch, length, context)


class ContextReader(ContextOnly, FeatureAutoregressor):
    """A network that reads a context as long as its rows, and not the rows. A subclass writes `encode`.

    A context shorter than the row counts as padded.

    Args:
        spec: of the data; its context has at least as many positions as a row.
        width: features of each position.
        tied: the head's weights are the embeddings of the context's first V tokens, which then are those of the row.
        max_logits: logits that scoring holds at once.
    """

    def __init__(self, spec: Spec, width: int, tied: bool, max_logits: int) -> None:
        FeatureAutoregressor.__init__(self, spec, max_logits)
        self.pad_id = check_context(self, spec)
        context = spec.context
        assert context is not None
        same = spec.fingerprint == context.fingerprint and context.vocab_size >= spec.vocab_size
        mend = "omit it: the context has not the tokens of the row"
        require(not tied or same, "model.net.tied", True, mend)
        self.longest = context.length
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


def check_context(net: Autoregressor, spec: Spec) -> int:
    """The padding of the contexts of a network that predicts token t from position t of a context.

    Raises:
        UserError: the data has no such contexts.
    """
    context, name = spec.context, type(net).__name__
    mend = "choose masked text, such as configs/data/docs_masked.yaml"
    if context is None or context.kind != "sequence" or context.pad_id is None:
        raise UserError(f"model.net: {name} reads a context, which the data does not have; {mend}")
    if spec.length > context.length:
        raise UserError(
            f"model.net: {name} predicts token t from position t of the context, but rows have {spec.length} tokens "
            f"and contexts {context.length}; {mend}"
        )
    return context.pad_id
