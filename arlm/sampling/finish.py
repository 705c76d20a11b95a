"""Where rows end, and why: at an end token, at their limit, or where something stopped them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from arlm.core import Spec
from arlm.errors import UserError, require
from arlm.sampling.processors import LogitsProcessor, MemoryProcessor

if TYPE_CHECKING:
    from arlm.sampling.steps import SamplerState


class Finish(IntEnum):
    """Why a row ended; in a state, 0 means that nothing but its tokens ended it, or that it goes on."""

    END = 1  # the end token was drawn
    LENGTH = 2  # the row has as many tokens as it may have
    STOP = 3  # a stop token was drawn, or a stop string
    CONSTRAINT = 4  # a processor says that nothing may follow, and there is no end token

    @property
    def label(self) -> str:
        """The reason in results: "end", "length", "stop", "constraint"."""
        return self.name.lower()


def at_token(state: SamplerState, ids: Tensor) -> Tensor:
    """Rows (B,) whose last token is among `ids` (B, K) and was drawn after the prompt."""
    last = state.tokens.gather(1, (state.lengths[:, None] - 1).clamp(min=0))
    return (last == ids).any(1) & (state.lengths > state.prompt_lengths)


def at_end(state: SamplerState, spec: Spec) -> Tensor:
    """Rows (B,) that end with the end token, or with one of their stop tokens."""
    if spec.eos_id is None:
        return at_token(state, state.stop_tokens)
    ends = state.stop_tokens.new_full((len(state.tokens), 1), spec.eos_id)
    return at_token(state, torch.cat([state.stop_tokens, ends], dim=1))


def finish_reasons(state: SamplerState, spec: Spec) -> list[str | None]:
    """Why each row of a state ended: "end", "length", "stop" or "constraint"; None for one that goes on."""
    reasons = torch.full_like(state.lengths, Finish.LENGTH)
    reasons[at_token(state, state.stop_tokens)] = Finish.STOP
    reasons = torch.where(state.reasons > 0, state.reasons.long(), reasons)
    if spec.eos_id is not None:
        ends = state.stop_tokens.new_full((len(reasons), 1), spec.eos_id)
        reasons[at_token(state, ends) & (state.reasons == 0)] = Finish.END
    ended = state.ended.tolist()
    return [
        Finish(reason).label if over else None
        for reason, over in zip(reasons.tolist(), ended, strict=True)
    ]


@torch.inference_mode()
def cut(state: SamplerState, lengths: Tensor, reason: Finish, fill: int) -> SamplerState:
    """The state with some rows ended before the last tokens that they took.

    Args:
        state: the rows; their tokens are written in place.
        lengths: (B,) int64, the new length of each row that is to end, and -1 for the others.
        reason: why they end.
        fill: token that follows the end of a row.
    """
    over = lengths >= 0
    new = torch.where(over, lengths, state.lengths)
    beyond = torch.arange(state.tokens.shape[1], device=new.device) >= new[:, None]
    state.tokens.masked_fill_(beyond, fill)
    state.log_prob.masked_fill_(beyond, 0.0)
    reasons = state.reasons.masked_fill(over, reason)
    return replace(state, lengths=new, ended=state.ended | over, reasons=reasons)


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
