"""Networks whose weights are computed from those of a frozen base.

    base weights W (frozen) --+
                              +--> effective weights --> any method of the base: forward, start, advance, ...
    own parameters -----------+

An adapter is a map from parameter names to effective tensors. Every method of the base runs with them under
`functional_call`, so whatever reads a weight (a recurrent kernel, the program of a pixel network, a head in blocks)
reads the effective one, and the base itself never changes.

    training          computed anew for each call, with gradients
    start, advance    computed once, by `start`, and carried by the state of the rows
    merge, unmerge    computed once, until `unmerge` or training
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from arlm.core import Autoregressor, Scores, Spec
from arlm.errors import UserError
from arlm.states import SHARED, State

# Methods that a network may have beside those of every Autoregressor; an adapter has those of its base.
OPTIONAL = ("context_features", "attention_weights", "sample_rows", "score_chunk")
# Of networks whose logits are a linear map of features. Pixel networks have other methods of these names.
OF_FEATURES = ("features", "features_log_prob", "logits", "linear_map", "advance_features")


@dataclass(frozen=True)
class AdaptedState(State):
    """A state of the base, and the effective weights that its rows are decoded with."""

    state: State
    weights: Mapping[str, Tensor] = field(metadata=SHARED)

    def rewind(self, counts: Tensor) -> Self:
        self._check_unused()
        # Of another object with the same tensors, so that a refusal by the base consumes nothing.
        rewound = replace(self, state=replace(self.state).rewind(counts))
        self.used.append(True)
        return rewound


class _Caller(nn.Module):
    """Calls a method of the base by its name."""

    def __init__(self, base: Autoregressor) -> None:
        super().__init__()
        self.base = base

    def forward(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.base, method)(*args, **kwargs)


class Adapted(Autoregressor):
    """A frozen network, and a map from the names of its parameters to effective tensors.

    A subclass writes `effective`. It has the optional methods of its base: features, chunks, whole rows of pixels,
    attention weights. Several adapters may share one base, which none of them changes.

    Args:
        spec: of the data.
        base: builds the base from the spec.

    Shapes: those of the base.
    """

    uses_context = True  # the base refuses a context itself
    base: Autoregressor

    def __init__(self, spec: Spec, base: Callable[[Spec], Autoregressor]) -> None:
        super().__init__(spec)
        self.base = base(spec)
        if self.base.spec != spec:  # a checkpoint could not be loaded
            raise UserError(
                f"model.net.base: it is for {self.base.spec}, not for {spec}; build it from the spec that "
                "its factory gets"
            )
        self.base.requires_grad_(False)
        self._caller = (_Caller(self.base),)  # in a tuple it is no submodule
        self._merged: dict[str, Tensor] | None = None
        names = OPTIONAL + (OF_FEATURES if hasattr(self.base, "linear_map") else ())
        for name in names:
            if hasattr(self.base, name):
                setattr(self, name, partial(self._optional, name))

    @abstractmethod
    def effective(self) -> dict[str, Tensor]:
        """Effective tensors by the names of the base's parameters; those that are left out are the base's."""

    def merge(self) -> Self:
        """Compute the effective tensors once, for inference; training ends it."""
        self.eval()
        self._merged = self._computed()
        return self

    def unmerge(self) -> Self:
        """Drop the merged tensors; the base's weights have not been changed."""
        self._merged = None
        return self

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._merged = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self._merged = None  # of another device or type
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._merged = None
        super()._load_from_state_dict(*args)

    @property
    def max_length(self) -> int | None:
        return self.base.max_length

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self._run("forward", tokens, context)

    def log_prob(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self._run("log_prob", tokens, context)

    def score(self, tokens: Tensor, context: Tensor | None = None) -> Scores:
        return self._run("score", tokens, context)

    def start(self, batch: int, length: int, context: Tensor | None = None) -> tuple[Tensor, State]:
        weights = self._weights()
        logits, state = self._call(weights, "start", batch, length, context)
        return logits, AdaptedState(state, weights, net=self.serial)

    def advance(
        self, tokens: Tensor, state: Any, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if not isinstance(state, AdaptedState):
            return super().advance(tokens, state, lengths)
        return self._advance("advance", tokens, state, lengths)

    def _advance(
        self, method: str, tokens: Tensor, state: AdaptedState, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        state.consume(self)
        scores, after = self._call(state.weights, method, tokens, state.state, lengths)
        return scores, replace(state, state=after)

    def _optional(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """A method that only some networks have."""
        if method == "advance_features":
            tokens, state, lengths = (*args, kwargs.get("lengths"))[:3]
            return self._advance(method, tokens, state, lengths)
        return self._run(method, *args, **kwargs)

    def _run(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._weights(), method, *args, **kwargs)

    def _weights(self) -> Mapping[str, Tensor]:
        """The merged tensors, if there are any and no gradient is wanted, or new ones."""
        if torch.is_grad_enabled():
            return self.effective()
        return self._computed() if self._merged is None else self._merged

    def _computed(self) -> dict[str, Tensor]:
        # Outside of inference mode, whose tensors take no part in autograd later.
        with torch.inference_mode(False), torch.no_grad():
            return self.effective()

    def _call(self, weights: Mapping[str, Tensor], method: str, *args: Any, **kwargs: Any) -> Any:
        named = {f"base.{name}": value for name, value in weights.items()}
        # Without tie_weights, a tied embedding would get the tensor of the head.
        return functional_call(
            self._caller[0], named, (method, *args), kwargs, tie_weights=False, strict=False
        )
