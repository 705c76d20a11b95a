"""The interface: everything is a sequence of discrete tokens, and `logits[:, t]` scores `tokens[:, t]`.

A network models p(x | c) = prod_t p(x_t | x_<t, c), the chain rule of probability. `forward` is the only
method that it must write; `log_prob`, `score`, `start` and `advance` follow from it. Sizes in the docstrings:
B rows, T tokens in a row, V vocabulary size, S tokens in a chunk or context, C channels of an image.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from arlm.construction import Captured
from arlm.errors import UserError
from arlm.states import Prefix, State, read_lengths

_SERIALS = count()
ContextKind = Literal["label", "sequence", "choices"]


@dataclass(frozen=True)
class Spec:
    """Everything that a network may know about its data.

    Args:
        vocab_size: number of distinct tokens, V.
        shape: `(T,)` for text; `(H, W, C)` for an image, flattened "h w c -> (h w c)".
        pad_id, eos_id, context: tokens that pad and that end a row, and the spec of its context, if any.
        unit: what tokens are measured in, for the names of metrics: "byte" or "dim".
        joint: whether the context has the same vocabulary.
        kind, null_id: of a context: "label", "sequence", or "choices" of shape (K, S); the class that means any class.
        fingerprint: of the tokenizer; None for tokens without one, such as pixels.
    """

    vocab_size: int
    shape: tuple[int, ...]
    pad_id: int | None = None
    eos_id: int | None = None
    context: Spec | None = None
    unit: str = "token"
    joint: bool = False
    kind: ContextKind = "sequence"
    null_id: int | None = None
    fingerprint: str | None = None

    @property
    def length(self) -> int:
        """Tokens in a full row, T."""
        return math.prod(self.shape)


class Batch(NamedTuple):
    """Rows of tokens, which of them are scored, and how many units each one represents."""

    tokens: Tensor  # (B, T) int64
    scored: Tensor  # (B, T) bool: counts in loss and metrics
    units: Tensor  # (B, T) float: bytes or dims that the token represents
    context: Tensor | None = None  # (B, S) int64
    starts_document: Tensor | None = None  # (B,) bool; False: continues the batch before
    weights: Tensor | None = None  # (B, T) float: what nats, tokens and units count for; None: 1


class Scores(NamedTuple):
    """Log-probabilities of one pass, and penalties that training adds to the loss."""

    log_prob: Tensor  # (B, T) nats
    auxiliary: Tensor | None = None  # (B, T), added to the loss where tokens are scored


class Autoregressor(Captured, nn.Module, ABC):
    """p(x | c) = prod_t p(x_t | x_<t, c) over sequences of discrete tokens.

    A subclass
    - writes `forward`, with the shift inside (a start vector, or mask A for pixels);
    - reads tokens only through a position-wise module `self.embed`, which gets whole rows (B, T) in `forward`;
    - keeps the network that a factory argument built in the attribute of the same name, for checkpoints;
    - overrides `log_prob`, `score`, `start` and `advance` only for speed, or to add penalties in `score`.
    """

    embed: nn.Module
    uses_context: ClassVar[bool] = False

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        if spec.context is not None and not self.uses_context:
            raise UserError(
                f"model.net: {type(self).__name__} cannot condition on the context of this data; "
                "choose a network whose `uses_context` is true, or data without a context"
            )
        self.spec, self.serial = spec, next(_SERIALS)  # a state names its network by its serial

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state | {"serial": next(_SERIALS)})  # a copy is another network

    @property
    def max_length(self) -> int | None:
        """Longest row that can be scored or sampled; None if there is no limit."""
        return self.spec.length

    @abstractmethod
    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits of every token of a row, in one pass.

        Args: tokens (B, T) int64, a prefix of a row or a whole row; context (B, S) int64, or None.
        Returns: logits (B, T, V), unnormalised; `[:, t]` depends on `tokens[:, :t]` only.
        """

    def log_prob(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x_t | x_<t, c) of each token, (B, T) in nats."""
        return token_log_prob(self(tokens, context), tokens)

    def score(self, tokens: Tensor, context: Tensor | None = None) -> Scores:
        """`log_prob`, with the penalties of the same pass that training adds to the loss."""
        return Scores(self.log_prob(tokens, context))

    def start(self, batch: int, length: int, context: Tensor | None = None) -> tuple[Tensor, State]:
        """Start `batch` empty rows of up to `length` tokens: logits (B, V) of the first one, and the state."""
        tokens = torch.zeros(batch, length, dtype=torch.long, device=device_of(self))
        pad_id = None if self.spec.context is None else self.spec.context.pad_id
        state = Prefix(tokens, tokens.new_zeros(batch), context, pad_id, net=self.serial)
        return self(tokens[:, :1], context)[:, 0], state

    def advance(
        self, tokens: Tensor, state: Any, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Take `tokens` (B, S) into the state, which is consumed: `state[:]`, before, is a copy to keep.

        A row of `length` tokens takes `length - 1`: nothing is scored after the last one. With `lengths` (B,),
        each from 0 to S, a row takes its first tokens; the others may be any integers, with undefined logits.

        Returns: logits (B, S, V), `[:, s]` scoring the token after `tokens[:, s]`, and the new state.
        """
        state.consume(self)
        lengths = read_lengths(tokens, lengths)
        after = state.append(tokens, lengths)
        columns = 1 + torch.arange(tokens.shape[1], device=tokens.device)
        scored = state.position[:, None] + columns.minimum(lengths[:, None])  # (B, S)
        logits = self(after.tokens[:, : int(scored.max()) + 1], after.context)
        return logits.gather(1, scored[..., None].expand(-1, -1, logits.shape[-1])), after


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities over the last axis, in float32 or better."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def token_log_prob(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p of `tokens` (...) under `logits` (..., V), in nats."""
    return log_softmax(logits).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def device_of(net: nn.Module) -> torch.device:
    """The device of a network's parameters, or of its buffers if it has no parameters."""
    return next(chain(net.parameters(), net.buffers())).device
