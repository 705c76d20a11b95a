"""The logits processors of a beam search, with their memories of each prefix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from arlm.core import Spec, log_softmax
from arlm.errors import UserError
from arlm.sampling.chain import (
    Memories,
    apply_all,
    new_memories,
    no_distribution,
    observe_all,
    select,
)
from arlm.sampling.finish import finished
from arlm.sampling.noise import seed_tensor
from arlm.sampling.processors import History, LogitsProcessor
from arlm.sampling.steps import without_padding


class Processed:
    """log q of the next token after each of n prefixes: the network's distribution after the processors.

    Without processors q is the network's own p, without its padding token, and not normalised anew.

    Args:
        processors: applied to the logits in order.
        rows: prefixes at the start, one for each row of the batch.
        prompt: tokens of their prompts.
        seeds: of the rows, for processors that draw; by default 0 for all.
        spec: of the network's data.
        device: of the logits.
    """

    def __init__(
        self,
        processors: Sequence[LogitsProcessor],
        rows: int,
        prompt: int,
        seeds: Sequence[int] | None,
        spec: Spec,
        device: torch.device,
    ) -> None:
        self.processors, self.prompt, self.spec = tuple(processors), prompt, spec
        self.seeds = seed_tensor([0] * rows if seeds is None else seeds, device)
        self.memories = new_memories(self.processors, rows, device)
        self._outputs: list[Tensor] = []
        self._ends = spec.eos_id is None and finished(self.processors, self.memories) is not None

    def __bool__(self) -> bool:
        return bool(self.processors)

    def log_prob(self, logits: Tensor, tokens: Tensor, length: int) -> Tensor:
        """log q (n, V) in nats, -inf for all tokens of a prefix that nothing may follow.

        Args:
            logits: (n, V), of the network.
            tokens: (n, T) int64, the prefixes.
            length: tokens of each.
        """
        if not self.processors:
            return without_padding(log_softmax(logits), self.spec)
        shaped = without_padding(logits, self.spec)
        lengths = torch.full((len(tokens),), length, device=tokens.device)
        prompts = torch.full_like(lengths, self.prompt)
        history = History(tokens, lengths, prompts, self.spec, self.seeds)
        self._outputs = apply_all(self.processors, shaped, history, self.memories)
        shaped = self._outputs[-1]
        empty = (shaped == -torch.inf).all(-1, keepdim=True)
        return log_softmax(shaped.masked_fill(empty, 0.0)).masked_fill(empty, -torch.inf)

    def follow(self, rows: Tensor, tokens: Tensor) -> None:
        """The prefixes `rows` (m,) of the last call, each with one more token (m,), take their place."""
        self.seeds, self.memories = self.seeds[rows], self._after(rows, tokens)

    def ended(self, rows: Tensor, tokens: Tensor) -> Tensor | None:
        """Whether nothing may follow the prefixes `rows` (m,) of the last call with one more token (m,); None if only
        an end token, or the limit, ends a row.
        """
        return finished(self.processors, self._after(rows, tokens)) if self._ends else None

    def _after(self, rows: Tensor, tokens: Tensor) -> Memories:
        """The memories of some prefixes with one more token."""
        outputs = [output[rows] for output in self._outputs]
        return observe_all(self.processors, tokens, outputs, select(self.memories, rows))


def refuse_nothing_found(score: Tensor) -> None:
    """Raise a UserError if a row (b, n) of scores, best first, has none above -inf, or nan."""
    for row in score.isnan().any(1).nonzero().flatten().tolist():
        raise no_distribution(f"after a prefix of row {row}")
    for row in (score[:, 0] == -torch.inf).nonzero().flatten().tolist():
        raise UserError(
            f"processors: they leave no token after any prefix that was kept in row {row}; "
            "give other processors, or a wider beam"
        )
