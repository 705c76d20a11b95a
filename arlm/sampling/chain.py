"""Logits processors in their order, each with what it remembers of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from arlm.errors import UserError
from arlm.sampling.processors import (
    History,
    LogitsProcessor,
    MemoryProcessor,
    apply,
    choose,
    name_of,
)
from arlm.sampling.processors.keep_end import applied

Memories = tuple[Any, ...]  # of each processor; None if it has none


def new_memories(
    processors: Sequence[LogitsProcessor], rows: int, device: torch.device
) -> Memories:
    """The memories of rows that have drawn nothing."""
    return tuple(
        p.init(rows, device) if isinstance(p, MemoryProcessor) else None for p in processors
    )


def apply_all(
    processors: Sequence[LogitsProcessor], logits: Tensor, history: History, memories: Memories
) -> list[Tensor]:
    """Logits (B, V) after each processor."""
    outputs = []
    for processor, memory in zip(processors, memories, strict=True):
        logits = apply(processor, logits, history, memory)
        outputs.append(logits)
    return outputs


def observe_all(
    processors: Sequence[LogitsProcessor],
    tokens: Tensor,
    outputs: Sequence[Tensor],
    memories: Memories,
    rows: Tensor | None = None,
) -> Memories:
    """The memories after tokens (B,) followed the outputs of `apply_all`.

    Args:
        processors, tokens, outputs, memories: as above.
        rows: (B,) bool, those that take the token; the memories of the others stay. None is all.
    """
    new = []
    for processor, output, memory in zip(processors, outputs, memories, strict=True):
        if isinstance(processor, MemoryProcessor) and memory is not None:
            after = processor.observe(tokens, output, memory)
            memory = after if rows is None else choose(rows, after, memory)
        new.append(memory)
    return tuple(new)


def select(memories: Any, rows: Tensor) -> Any:
    """Some rows (m,) of memories: of tensors or objects, of nested tuples of them, or of None."""
    if isinstance(memories, tuple):
        return tuple(select(part, rows) for part in memories)
    return None if memories is None else memories[rows]


def refuse_masked(
    processors: Sequence[LogitsProcessor],
    logits: Sequence[Tensor],
    rows: Tensor,
    position: Tensor,
    numbers: Tensor | None = None,
) -> None:
    """Raise a UserError that names the processor which left a row nothing to draw, unless there is no such row.

    Args:
        processors: in their order.
        logits: (B, V) before them and after each one.
        rows: (B,) bool, which rows have no token that can be drawn.
        position: (B,) int64, of the token in each row.
        numbers: (B,) int64, of the rows, by default 0 to B - 1.
    """
    for row in rows.nonzero().flatten().tolist():
        # After nan or inf there are no probabilities.
        left = [bool(each[row].max().isfinite()) for each in logits]
        number = row if numbers is None else int(numbers[row])
        where = f"at position {int(position[row])} of row {number}"
        if not left[0]:
            raise no_distribution(where)
        cause = applied(processors[left.index(False) - 1])
        raise UserError(
            f"{name_of(type(cause))}: it masks all tokens that were left {where}; {cause.no_token}"
        )


def refuse_undefined(
    nats: Tensor, drawn: Tensor, first: Tensor, numbers: Tensor | None = None
) -> None:
    """Raise a UserError if a drawn token has no log-probability, since the network gave no distribution.

    Looking at the scores of many tokens costs nothing beside looking at the logits of each draw.

    Args:
        nats: (B, n), of the tokens under the network.
        drawn: (B, n) bool, those that count: in a row, and not forced.
        first: (B,) int64, position of the first token of each row.
        numbers: (B,) int64, of the rows, by default 0 to B - 1.
    """
    undefined = ~(nats > -torch.inf) & drawn
    if bool(undefined.any()):
        row, offset = undefined.nonzero()[0].tolist()
        number = row if numbers is None else int(numbers[row])
        raise no_distribution(f"at position {int(first[row]) + offset} of row {number}")


def no_distribution(where: str) -> UserError:
    """The error of a network whose logits are -inf for all tokens, nan or inf."""
    return UserError(
        f"network: its logits {where} are nan or inf, or all -inf; nothing can be drawn"
    )
