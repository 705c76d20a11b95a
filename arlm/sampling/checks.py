"""What is refused in the middle of a batch, and which rows the processors have finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from arlm.errors import UserError, require
from arlm.sampling.processors import LogitsProcessor, MemoryProcessor


def finished(processors: Sequence[LogitsProcessor], memories: Sequence[Any]) -> Tensor | None:
    """Rows (B,) bool that nothing but an end may follow; None if no processor ends rows."""
    found = None
    for processor, memory in zip(processors, memories, strict=True):
        rows = processor.finished(memory) if isinstance(processor, MemoryProcessor) else None
        if rows is not None:
            found = rows if found is None else found | rows
    return found


def check_limits(limits: Tensor, rows: int, longest: int, equal: bool) -> None:
    """Refuse limits outside 1 to `longest`, and different ones if they have to be equal."""
    fits = len(limits) == rows and bool(((limits >= 1) & (limits <= longest)).all())
    mend = f"give {rows} numbers from 1 to {longest}"
    require(fits, "lengths", limits.tolist(), mend)
    if equal and len(limits.unique()) > 1:
        raise UserError(
            f"lengths: {limits.tolist()} differ, but the images of a batch are at the same pixel; "
            "give one length for all"
        )
