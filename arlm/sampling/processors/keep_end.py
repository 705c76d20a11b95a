"""Keep-end: a truncation that never masks the end token, so that every row ends sooner or later.

References:
    | Consistency of a Recurrent Language Model With Respect to Incomplete Decoding (Welleck et al., 2020), section
    | 4.1: consistent top-k and nucleus sampling | https://arxiv.org/abs/2002.02492
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from arlm.errors import UserError
from arlm.sampling.processors import (
    History,
    LogitsProcessor,
    MemoryProcessor,
    end_token,
    name_of,
)

if TYPE_CHECKING:
    from arlm.domains import Domain


@dataclass(frozen=True)
class KeepEnd(LogitsProcessor):
    """Apply a processor, and give the end token its logit of before back if it was masked.

    Tokens that were masked before stay masked. On the command line it is a field of the processor:
    top_p=0.9:keep_end=true.

    Order: that of the processor that it applies; one truncation after it may mask the end again.

    Args:
        processor: a truncation without memory, such as top_k or top_p.
    """

    processor: LogitsProcessor

    def __post_init__(self) -> None:
        if isinstance(self.processor, MemoryProcessor | KeepEnd):
            name = name_of(type(self.processor))
            raise UserError(f"keep_end: it cannot hold {name}; give it a truncation such as top_p")

    def bind(self, domain: Domain) -> KeepEnd:
        return KeepEnd(self.processor.bind(domain))

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        end = end_token("keep_end", history.spec)
        out = self.processor(logits, history)
        if out is logits:
            return out
        kept = out.clone()
        kept[:, end] = logits[:, end].where(out[:, end] == -torch.inf, out[:, end])
        return kept
