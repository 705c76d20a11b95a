"""Rows of different lengths, for networks that take whole chunks only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from arlm.states import read_lengths


def by_segments(
    step: Callable[[Tensor, Any], tuple[Tensor, Any]],
    tokens: Tensor,
    state: Any,
    lengths: Tensor | None,
    size: int,
) -> tuple[Tensor, Any]:
    """`advance` with a length for each row, for networks that take whole chunks only.

    The tokens are cut where a row ends, and each piece goes to the rows that reach its end:

        lengths 3  x x x          pieces  [0, 2) of rows 0, 1, 2
        lengths 2  x x                    [2, 3) of rows 0, 2
        lengths 4  x x x x                [3, 4) of row 2

    Args:
        step: takes tokens (n, s) and the state of n rows; returns logits (n, s, V) and the new state.
        tokens: (B, S).
        state: of B rows, consumed.
        lengths: (B,) tokens that each row takes, or None for all.
        size: V, or that of whatever else `step` returns for each token.

    Returns: logits (B, S, V), zero beyond a row's length, and the new state.
    """
    if lengths is None:
        return step(tokens, state)
    lengths = read_lengths(tokens, lengths)
    state = replace(state)  # a state with the same tensors that is not consumed
    logits: Tensor | None = None
    begin = 0
    for end in lengths.unique().tolist():
        if end == 0:
            continue
        rows = (lengths >= end).nonzero().flatten()
        everything = len(rows) == len(tokens)
        chunk, part = step(tokens[rows, begin:end], state if everything else state[rows])
        if logits is None:
            logits = chunk.new_zeros(*tokens.shape, size)
        logits[rows, begin:end] = chunk
        state = part if everything else state.assign(rows, part)
        begin = end
    if logits is None:
        logits = torch.zeros(*tokens.shape, size, device=tokens.device)
    return logits, state


def without_ignored(tokens: Tensor, lengths: Tensor) -> Tensor:
    """Tokens (B, S) with 0 in place of those beyond `lengths` (B,), which may be any integers."""
    return tokens.masked_fill(
        torch.arange(tokens.shape[1], device=tokens.device) >= lengths[:, None], 0
    )
