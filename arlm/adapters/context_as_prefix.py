"""A language model as a network of pairs: the source is the beginning of the row, the target continues it.

    source   a b c <pad>        row of the base   a b c | x y <end>          | is the separator
    target   x y <end>                            - - - -  scored: x, y and <end>

References:
    | Improving Language Understanding by Generative Pre-Training (Radford et al., 2018), delimiters between texts
    | https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf
    | Language Models are Unsupervised Multitask Learners (Radford et al., 2019), translation by a language model
    | https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec
from arlm.errors import UserError
from arlm.layers.encoder import read_sources, source_spec
from arlm.layers.features import FeatureAutoregressor
from arlm.states import SHARED, State, check_room, read_lengths, rewound


@dataclass(frozen=True)
class PrefixedState(State):
    """The state of the base after source, separator and some tokens of the target."""

    states: tuple[State, ...]  # of the base, a single one
    position: Tensor  # (B,) int64, tokens of the target
    room: int = field(metadata=SHARED)  # tokens of the target that a row may take

    def check_fits(self, rows: Tensor, other: Self) -> None:
        check_room(other.position * 0, other.position, self.room)
        super().check_fits(rows, other)

    def concatenated(self, others: Sequence[Self]) -> Self:
        room = max(state.room for state in (self, *others))
        return replace(super().concatenated(others), room=room)

    def rewind(self, counts: Tensor) -> Self:
        position = rewound(self.position, counts)  # never into the source
        self._check_unused()
        # Of another object with the same tensors, so that a refusal by the base consumes nothing.
        earlier = self._each(lambda entry, x: x, lambda state: replace(state).rewind(counts))
        self.used.append(True)
        return replace(earlier, position=position)


class ContextAsPrefix(Autoregressor):
    """p(target | source) of a causal language model over rows `source <sep> target`; only the target is scored.

    The base has the joint vocabulary and one token more, the separator, which no target holds: it is left out of the
    logits. Rows of different lengths are packed without gaps, so the base never reads the source's padding. Penalties
    that the base adds in `score` are not added.

    Args:
        spec: of pairs whose source and target have one vocabulary.
        base: builds the language model, from the spec of rows of up to S + 1 + T tokens without a context.

    Shapes: tokens (B, T), context (B, S) -> logits (B, T, V).

    Raises:
        UserError: the data has no source sentences, or source and target have a vocabulary each.
    """

    uses_context = True

    def __init__(self, spec: Spec, base: Callable[[Spec], Autoregressor]) -> None:
        super().__init__(spec)
        source = source_spec(spec)
        if not spec.joint:
            raise UserError(
                "model.net: ContextAsPrefix joins source and target in one row, but they have a vocabulary each; "
                "set data.joint true"
            )
        self.separator, self.longest_source = spec.vocab_size, source.length
        rows = replace(
            spec,
            vocab_size=spec.vocab_size + 1,
            shape=(source.length + 1 + spec.length,),
            context=None,
            joint=False,
        )
        self.base = base(rows)
        if self.base.spec != rows:  # a checkpoint could not be loaded
            raise UserError(
                f"model.net.base: it is for {self.base.spec}, not for {rows}; "
                "build it from the spec that its factory gets"
            )

        layers: list[Any] = list(self.base.modules())
        for layer in layers:  # what attention reads, for pictures
            if getattr(layer, "queries_of", None) == "tokens":
                layer.queries_of = layer.keys_of = "row of source and tokens"

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        before = self._before_target(context)
        rows = self._packed(tokens, context, before)
        scored = before[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        if not isinstance(self.base, FeatureAutoregressor):
            return _at(scored, self.base(rows))[..., : self.separator]
        # The head is applied to the target only: most of a row may be source.
        features = _at(scored, self.base.features(rows))
        return self.base.logits(features)[..., : self.separator]

    def start(self, batch: int, length: int, context: Tensor | None = None) -> tuple[Tensor, State]:
        before = self._before_target(context)
        rows = self._packed(before.new_zeros(batch, 0), context, before)
        # Room for the longest source, so that rows of any source can be joined.
        _, state = self.base.start(batch, self.longest_source + 1 + length)
        last = before[:, None] - 1
        base: Any = self.base
        if hasattr(base, "advance_features"):
            features, state = base.advance_features(rows, state, before)
            logits = base.logits(_at(last, features))
        else:
            logits, state = base.advance(rows, state, before)
            logits = _at(last, logits)
        state = PrefixedState((state,), torch.zeros_like(before), length - 1, net=self.serial)
        return logits[:, 0, : self.separator], state

    def advance(
        self, tokens: Tensor, state: Any, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        if not isinstance(state, PrefixedState):
            return super().advance(tokens, state, lengths)
        taken = read_lengths(tokens, lengths)
        check_room(state.position, taken, state.room)
        state.consume(self)
        logits, after = self.base.advance(tokens, state.states[0], lengths)
        position = state.position + taken
        return logits[..., : self.separator], replace(state, states=(after,), position=position)

    def _before_target(self, context: Tensor | None) -> Tensor:
        """Tokens of the base's row before the target, the separator included: (B,)."""
        _, lengths = read_sources(self.spec, context)
        longest = int(lengths.max())
        if longest > self.longest_source:
            raise UserError(
                f"context: a source of {longest} tokens does not fit the network, which holds "
                f"{self.longest_source}; split the sentence, or train with a larger data.length"
            )
        return lengths + 1

    def _packed(self, tokens: Tensor, context: Any, before: Tensor) -> Tensor:
        """Targets (B, T) behind their sources (B, S) and separators: (B, S' + T), S' = max(before)."""
        longest = int(before.max())
        separator = before.new_full((len(before), 1), self.separator)
        joined = torch.cat([context[:, : longest - 1], separator, tokens], dim=1)
        slots = torch.arange(joined.shape[1], device=joined.device)
        gap = torch.where(slots < before[:, None] - 1, 0, longest - before[:, None])
        return joined.gather(1, (slots + gap).clamp(max=joined.shape[1] - 1))


def _at(positions: Tensor, values: Tensor) -> Tensor:
    """The values (B, T, F) at some positions (B, T) of rows (B, L, F)."""
    return values.gather(1, positions[..., None].expand(-1, -1, values.shape[-1]))
