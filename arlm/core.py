"""The interface: everything is a sequence of discrete tokens, and `logits[:, t]` scores `tokens[:, t]`.

A network models p(x | c) = prod_t p(x_t | x_<t, c), the chain rule of probability. `forward` is the one
method it must write; `log_prob`, `start` and `advance` follow from it. Sizes in the docstrings:
B rows, T tokens in a row, V vocabulary size, S tokens in a chunk, C channels of an image.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from arlm.errors import UserError, require


@dataclass(frozen=True)
class Spec:
    """All that a network may know of its data.

    Args:
        vocab_size: number of distinct tokens, V.
        shape: `(T,)` for text; `(H, W, C)` for an image, flattened "h w c -> (h w c)".
        pad_id: token that fills up short rows, if there is one.
        eos_id: token that ends a row, if there is one.
        context: spec of what is conditioned on, if anything is.
        unit: what a token is worth in, for the names of metrics: "byte", "word" or "dim".
        joint: whether the context's tokens are numbered as these are.
    """

    vocab_size: int
    shape: tuple[int, ...]
    pad_id: int | None = None
    eos_id: int | None = None
    context: Spec | None = None
    unit: str = "token"
    joint: bool = False

    @property
    def length(self) -> int:
        """Tokens in a full row, T."""
        return math.prod(self.shape)


class Batch(NamedTuple):
    """Rows of tokens and what they count for."""

    tokens: Tensor  # (B, T) int64
    scored: Tensor  # (B, T) bool: counts in loss and metric
    units: Tensor  # (B, T) float: bytes, words or dims that the token stands for
    context: Tensor | None = None  # (B, S) int64
    fresh: Tensor | None = (
        None  # (B,) bool: begins a document; the others go on from the batch before
    )


@dataclass(frozen=True)
class State:
    """What incremental decoding carries: a batch-first pytree of tensors, passed by value.

    `state[rows]` selects or reorders rows, as beams do. Fields named in `shared` are the same for all
    rows (folded weights) and are left alone.
    """

    shared: ClassVar[frozenset[str]] = frozenset()

    def __getitem__(self, rows: Tensor | slice) -> State:
        return self.map(lambda part: part[rows])

    def map(self, function: Callable[[Tensor], Tensor]) -> State:
        """The same of each tensor that is not shared."""
        names = [f.name for f in fields(self) if f.name not in self.shared]
        return replace(self, **{name: map_tensors(function, getattr(self, name)) for name in names})

    def leaves(self) -> list[Tensor]:
        """All tensors that are not shared, in order."""
        found: list[Tensor] = []
        self.map(lambda part: found.append(part) or part)  # type: ignore[func-returns-value]
        return found

    def filled(self, leaves: Iterator[Tensor]) -> State:
        """This state's form with other tensors, in the order of `leaves`."""
        return self.map(lambda _: next(leaves))

    def join(self, below: State) -> State:
        """The rows of both, one below the other."""
        others = iter(below.leaves())
        return self.map(lambda part: torch.cat([part, next(others)]))


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same of each tensor in nested tuples; what is no tensor stays."""
    if isinstance(value, Tensor):
        return function(value)
    return tuple(map_tensors(function, v) for v in value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Prefix(State):
    """The state of the slow, obvious decoder: all tokens so far."""

    tokens: Tensor  # (B, t)
    context: Tensor | None


class Carried(NamedTuple):
    """Where rows stopped: the last token, which is not in the state yet, and the state before it."""

    last: Tensor  # (B, 1) int64
    state: State


class Autoregressor(nn.Module, ABC):
    """p(x | c) = prod_t p(x_t | x_<t, c) over sequences of discrete tokens.

    A subclass
    - writes `forward`, with the shift inside (a start vector, or mask A for pixels);
    - looks at tokens only through a position-wise module `self.embed` (the gradient law hooks it);
    - keeps each named scalar of its constructor as an attribute of the same name, so that
      `arlm.checkpoints.describe` can write it down and `arlm.load` build it again;
    - overrides `start` and `advance` only for speed: the forms here are the oracle.
    """

    embed: nn.Module
    uses_context: ClassVar[bool] = False
    carries: ClassVar[bool] = False  # whether `advance` may go on without end, as an RNN's does

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        if spec.context is not None and not self.uses_context:
            raise UserError(
                f"model.net: {type(self).__name__} cannot condition on the context of this data; "
                "choose a network whose `uses_context` is true, or data without a context"
            )
        self.spec = spec

    @property
    def max_length(self) -> int | None:
        """Longest row that can be scored or sampled; None where there is no limit."""
        return self.spec.length

    @abstractmethod
    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """Scores of all next tokens at once.

        Args:
            tokens: (B, T) int64, a prefix of a row or a whole row.
            context: (B, S) int64, or None.

        Returns:
            logits (B, T, V), unnormalised; `[:, t]` depends on `tokens[:, :t]` only.
        """

    def log_prob(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x_t | x_<t, c) of each token, (B, T) in nats."""
        return token_log_prob(self(tokens, context), tokens)

    def start(self, batch: int, length: int, context: Tensor | None = None) -> tuple[Tensor, State]:
        """Begin `batch` empty rows of up to `length` tokens.

        Returns:
            logits (B, V) of the first token, and the state.
        """
        tokens = torch.zeros(batch, 0, dtype=torch.long, device=device_of(self))
        return self(tokens.new_zeros(batch, 1), context)[:, 0], Prefix(tokens, context)

    def advance(self, tokens: Tensor, state: Any) -> tuple[Tensor, State]:
        """Take `tokens` (B, S) into the state, which may be consumed.

        A row of `length` tokens takes `length - 1`: nothing is scored after the last one.

        Returns:
            logits (B, S, V), `[:, s]` scoring the token after `tokens[:, s]`, and the new state.
        """
        prefix = torch.cat([state.tokens, tokens], dim=1)
        next_token = tokens.new_zeros(len(tokens), 1)  # any token: no logit read here depends on it
        logits = self(torch.cat([prefix, next_token], dim=1), state.context)
        return logits[:, -tokens.shape[1] :], Prefix(prefix, state.context)

    def carry_on(
        self, tokens: Tensor, carried: Carried | None = None, context: Tensor | None = None
    ) -> tuple[Tensor, Carried]:
        """log_prob of a piece of longer rows: truncated back-propagation, and evaluation without windows.

        Args:
            tokens: (B, S) int64, which follow those that were given with `carried`.
            carried: from the piece before, or None where rows begin.
            context: (B, S') int64, or None; read where rows begin.

        Returns: nats (B, S), as one pass over the long rows would give, and where they stopped.
        """
        if carried is None:
            logits, state = self.start(len(tokens), tokens.shape[1], context)
            logits = logits[:, None]
            if tokens.shape[1] > 1:
                more, state = self.advance(tokens[:, :-1], state)
                logits = torch.cat([logits, more], dim=1)
        else:
            before = torch.cat([carried.last, tokens[:, :-1]], dim=1)
            logits, state = self.advance(before, carried.state)
        return token_log_prob(logits, tokens), Carried(tokens[:, -1:], state)

    def attention_weights(self, tokens: Tensor, context: Tensor | None = None) -> Tensor | None:
        """Where each token's score looks in the context, (B, T, S), rows summing to 1; None if nowhere."""
        return None

    def roll_out(
        self,
        noise: Tensor,
        forced: Tensor,
        context: Tensor | None,
        progress: Callable[[int], object],
    ) -> tuple[Tensor, Tensor] | None:
        """Draw whole rows at once, if the network has a faster way than `advance`; here it has none.

        Args:
            noise: (B, T) float64 in [0, 1), turned into tokens as `arlm.sampling.noise.draw` does.
            forced: (B, T) int64, -1 where a token is to be drawn.
            context: as for `forward`.
            progress: called with the number of positions done.

        Returns: tokens and log-probabilities (B, T), or None.
        """
        return None


def check_sizes(dropout: float = 0.0, **sizes: int) -> None:
    """Refuse a network's sizes below 1 and dropout outside [0, 1)."""
    for name, size in sizes.items():
        require(size >= 1, f"model.net.{name}", size, "choose at least 1")
    require(0 <= dropout < 1, "model.net.dropout", dropout, "choose from 0 up to below 1")


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities over the last axis, in float32 or better."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def token_log_prob(logits: Tensor, tokens: Tensor) -> Tensor:
    """Nats of `tokens` (...) under `logits` (..., V)."""
    return log_softmax(logits).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def device_of(net: nn.Module) -> torch.device:
    """Where the parameters of `net` are."""
    return next(net.parameters()).device
