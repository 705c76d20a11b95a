"""Keep-end: a truncation that never masks the end token, so that every row ends sooner or later.

References:
    | Consistency of a Recurrent Language Model With Respect to Incomplete Decoding (Welleck et al., 2020), section
    | 4.1: consistent top-k and nucleus sampling | https://arxiv.org/abs/2002.02492
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from arlm.errors import UserError
from arlm.sampling.processors import (
    History,
    LogitsProcessor,
    MemoryProcessor,
    apply,
    end_token,
    name_of,
)

if TYPE_CHECKING:
    from arlm.domains import Domain


@dataclass(frozen=True)
class KeepEnd(MemoryProcessor):
    """Apply a processor, and give the end token its logit of before back if it was masked.

    Tokens that were masked before stay masked. On the command line it is a field of the processor:
    top_p=0.9:keep_end=true. Its memory is that of the processor, if it has one.

    Order: that of the processor that it applies; one truncation after it may mask the end again.

    Args:
        processor: a truncation, such as top_k, top_p or mirostat; none that says itself where rows may end.
    """

    processor: LogitsProcessor

    def __post_init__(self) -> None:
        kind = type(self.processor)
        own = isinstance(self.processor, MemoryProcessor)
        if kind is KeepEnd or (own and kind.finished is not MemoryProcessor.finished):  # type: ignore[attr-defined]
            mend = "give it a truncation such as top_p"
            raise UserError(f"keep_end: it cannot hold {name_of(kind)}; {mend}")

    def bind(self, domain: Domain) -> Self:
        return replace(self, processor=self.processor.bind(domain))

    def outcomes(self) -> Sequence[tuple[float, LogitsProcessor]]:
        return [
            (weight, replace(self, processor=each)) for weight, each in self.processor.outcomes()
        ]

    def init(self, rows: int, device: torch.device) -> Any:
        own = self.processor
        return own.init(rows, device) if isinstance(own, MemoryProcessor) else None

    def observe(self, tokens: Tensor, logits: Tensor, memory: Any) -> Any:
        assert isinstance(self.processor, MemoryProcessor)
        return self.processor.observe(tokens, logits, memory)

    def __call__(self, logits: Tensor, history: History, memory: Any) -> Tensor:  # type: ignore[override]
        end = end_token("keep_end", history.spec)
        out = apply(self.processor, logits, history, memory)
        if out is logits:
            return out
        kept = out.clone()
        kept[:, end] = logits[:, end].where(out[:, end] == -torch.inf, out[:, end])
        return kept


def applied(processor: LogitsProcessor) -> LogitsProcessor:
    """The processor itself; with keep_end=true, the one that is applied."""
    return processor.processor if isinstance(processor, KeepEnd) else processor
