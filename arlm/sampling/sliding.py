"""Rows longer than a network's window: when the window is full, its older half is dropped.

    window of 8, 4 kept      position   0 1 2 3 4 5 6 7 8 9 . . .
    drawn in the first window           a b c d e f g h
    read again, as a new row                    e f g h | i j k l
    and again                                           i j k l | m ...

The kept tokens are read again after the network's own start, so the network scores token p from the row
`tokens[first:p]`, where `first` depends on p alone: 0 in the first window, then a multiple of the tokens that are
dropped at a slide. Hence a row does not depend on its batch, on the size of blocks, or on how much of it is a
prompt. Noise, processors and their memories have the positions of the whole row. In the first window the rows are
those of `Steps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.core import Autoregressor, token_log_prob
from arlm.errors import UserError
from arlm.sampling.details import NOTHING, Block, Details
from arlm.sampling.finish import at_end, check_limits
from arlm.sampling.inference_context import inference_context
from arlm.sampling.noise import Noise, Uniform
from arlm.sampling.processors import LogitsProcessor
from arlm.sampling.steps import (
    SamplerState,
    Steps,
    begin,
    filler,
)
from arlm.states import SHARED, State


@dataclass(frozen=True)
class SlidingState(SamplerState):
    """Rows of which the network holds a window; `limits` is where each row's window is full, or its end."""

    ends: Tensor  # (B,) int64, most tokens of each row
    context: Tensor | None
    window: int = field(metadata=SHARED)


def kept(window: int) -> int:
    """Tokens that are read again at each slide."""
    return window // 2


def first_window(net: Autoregressor, length: int) -> int:
    """Tokens for which `begin_steps` starts rows of `length` tokens."""
    return length if net.max_length is None else min(length, net.max_length)


def check_slides(net: Autoregressor, length: int) -> None:
    """Refuse rows of `length` tokens that are longer than the window of a network that cannot slide it."""
    if net.max_length is None or length <= net.max_length:
        return
    context = net.spec.context
    if len(net.spec.shape) > 1 or (context is not None and context.kind != "label"):
        what = "an image" if len(net.spec.shape) > 1 else "a translation"
        raise UserError(
            f"length: {length} tokens do not fit {what} of the network, which holds {net.max_length}; "
            f"choose at most {net.max_length}"
        )


def begin_steps(
    net: Autoregressor,
    forced: Tensor,
    seeds: Sequence[int] | Tensor,
    processors: Sequence[LogitsProcessor] = (),
    context: Tensor | None = None,
    limits: Tensor | None = None,
    block: int = 1,
    noise: Noise = Uniform(),  # noqa: B008  (frozen)
    stop_tokens: Sequence[int] | Tensor = (),
    details: Details = NOTHING,
    started: tuple[Tensor, State] | None = None,
) -> Steps:
    """Rows that are ready to be drawn, by a sliding window if they may be longer than that of the network.

    Args:
        net, forced, seeds, processors, context, limits, noise, stop_tokens: as for `begin`; any number of tokens for text.
        block, details: as for `Steps`.
        started: as for `begin`, of rows of `first_window` tokens.
    """
    window, (rows, length) = net.max_length, forced.shape
    check_slides(net, length)
    chosen: dict[str, Any] = {"noise": noise, "stop_tokens": stop_tokens, "started": started}
    if window is None or length <= window:
        state = begin(net, forced, seeds, processors, context, limits, **chosen)
        return Steps(net, state, block, details)
    ends = torch.full((rows,), length, device=forced.device) if limits is None else limits.clone()
    check_limits(ends, rows, length, equal=False)
    in_first = ends.clamp(max=window)
    first = begin(net, forced[:, :window], seeds, processors, context, in_first, **chosen)
    parts = {f.name: getattr(first, f.name) for f in fields(SamplerState) if f.init}
    for name, value in {"tokens": filler(net.spec), "log_prob": 0.0}.items():
        parts[name] = F.pad(parts[name], (0, length - window), value=value)
    prompts = (forced >= 0).long().cumprod(1).sum(1)
    whole = {"forced": forced.clone(), "prompt_lengths": prompts}
    sliding = SlidingState(**parts | whole, ends=ends, context=context, window=window)
    return SlidingSteps(net, sliding, block, details)


class SlidingSteps(Steps):
    """`Steps` that slides the window of each row that has filled it, at the end of a block."""

    state: SlidingState

    def __init__(
        self, net: Autoregressor, state: SlidingState, block: int = 1, details: Details = NOTHING
    ) -> None:
        super().__init__(net, state, block, details)
        self.state = slid(net, state)

    def __next__(self) -> Block:
        block = super().__next__()
        self.state = slid(self.net, self.state)
        return block


def slid(net: Autoregressor, state: SlidingState) -> SlidingState:
    """The state after the slides of all rows with a full window, and the prompts that follow in them."""
    with inference_context(net):
        while bool((full := _full(net, state)).any()):
            state = _slide(net, state, full.nonzero().flatten())
    return state


def _full(net: Autoregressor, s: SlidingState) -> Tensor:
    """Rows (B,) that stopped at the end of their window, and not at their own."""
    full = s.ended & (s.lengths == s.limits) & (s.limits < s.ends) & (s.reasons == 0)
    return full & ~at_end(s, net.spec)


def _slide(net: Autoregressor, s: SlidingState, rows: Tensor) -> SlidingState:
    """Read the kept tokens of some rows again, and the tokens of their prompts that follow in the new window."""
    length = s.lengths[rows]
    start = length - kept(s.window)
    limit = (start + s.window).minimum(s.ends[rows])
    until = s.prompt_lengths[rows].minimum(limit).maximum(length)
    taken = (until - start).clamp(
        max=s.window - 1
    )  # nothing of this window is scored after its last token
    most = int((until - start).max())
    columns = start[:, None] + torch.arange(most, device=start.device)
    new = (columns >= length[:, None]) & (columns < until[:, None])
    columns = columns.clamp(max=s.tokens.shape[1] - 1)
    old, forced = s.tokens[rows].gather(1, columns), s.forced[rows].gather(1, columns)
    tokens = forced.where(new, old)

    context = None if s.context is None else s.context[rows]
    logits, network = net.start(len(rows), s.window, context)
    scores, read = logits[:, None], int(taken.max())
    if read:
        even = bool((taken == read).all())
        chunk, network = net.advance(tokens[:, :read], network, None if even else taken)
        scores = torch.cat([scores, chunk], dim=1)
    logits = scores[torch.arange(len(rows), device=rows.device), taken]
    if bool(new.any()):
        nats = token_log_prob(scores[:, :most], tokens).double()
        at = rows[:, None].expand_as(columns)[new], columns[new]
        s.tokens[at], s.log_prob[at] = tokens[new], nats[new]

    all_rows = len(rows) == len(s.lengths)
    changed: dict[str, Tensor | State] = {
        "network": network if all_rows else s.network.assign(rows, network)
    }
    for name, value in {
        "logits": logits,
        "lengths": until,
        "limits": limit,
        "ended": until >= limit,
    }.items():
        changed[name] = getattr(s, name).index_copy(0, rows, value.to(getattr(s, name).dtype))
    return replace(s, **changed)  # type: ignore[arg-type]
