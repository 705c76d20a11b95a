"""Requests of continuous batching, and what they have drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.errors import UserError, require
from arlm.inference.stops import check_stops
from arlm.sampling.details import Alternatives
from arlm.sampling.generate import class_count
from arlm.sampling.processors import LogitsProcessor

STOP_TOKENS = 8  # that a request may have
CANCELLED = "cancelled"


@dataclass(frozen=True)
class Request:
    """What is to be drawn after a prompt.

    Args:
        prompt: (P,) int64 tokens, maybe none.
        seed: of the row.
        new_tokens: most tokens to draw.
        stop: strings that end the text where they first occur after the prompt; the batcher has to decode.
        stop_tokens: tokens that end the row as its last one.
        label: class of the row, for networks with classes.
        processors: None for those of the batcher; others are refused, since all rows of a batch share them.
    """

    prompt: Tensor
    seed: int
    new_tokens: int
    stop: Sequence[str] = ()
    stop_tokens: Sequence[int] = ()
    label: int | None = None
    processors: Sequence[LogitsProcessor] | None = None


class Update(NamedTuple):
    """What a request has drawn since its last update."""

    request: int  # its number, from `submit`
    tokens: Tensor  # (n,) int64
    log_prob: Tensor  # (n,) nats under the network
    text: str  # final text that follows the prompt and the updates before; "" without `decode`
    finish: str | None  # in the last update: "end", "length", "stop", "constraint" or "cancelled"
    processed_log_prob: Tensor | None = None  # (n,) nats after the processors; see `Details`
    top: Alternatives | None = None  # (n, K)


def check_request(
    request: Request,
    net: Autoregressor,
    room: int,
    processors: Sequence[LogitsProcessor],
    decodes: bool,
) -> None:
    """Raise a UserError for a request that cannot be served.

    Args:
        request: to check.
        net: the network.
        room: most tokens of a row.
        processors: of the batch.
        decodes: whether the batch has texts.
    """
    size, spec, classes = len(request.prompt), net.spec, class_count(net.spec)
    require(request.new_tokens >= 1, "new_tokens", request.new_tokens, "choose at least 1")
    if size + request.new_tokens > room:
        raise UserError(
            f"prompt: {size} tokens and {request.new_tokens} new ones are more than the {room} of a row; "
            "shorten it, ask for fewer new tokens, or give the batcher a larger length"
        )
    tokens = [*request.prompt.tolist(), *request.stop_tokens]
    wrong = next((token for token in tokens if not 0 <= token < spec.vocab_size), None)
    require(wrong is None, "tokens", wrong, f"choose 0 to {spec.vocab_size - 1}")
    if request.processors is not None and tuple(request.processors) != tuple(processors):
        raise UserError(
            f"processors: {list(request.processors)} differ from those of the batch, {list(processors)}; "
            "omit them, or start another batcher"
        )
    if request.stop and not decodes:
        raise UserError("stop: the batcher decodes no text; give it `decode`")
    check_stops(request.stop, field="stop")
    count = len(request.stop_tokens)
    require(count <= STOP_TOKENS, "stop_tokens", count, f"give at most {STOP_TOKENS}")
    fits = request.label is None if not classes else 0 <= (request.label or 0) < classes
    require(fits, "label", request.label, f"choose 0 to {classes - 1}" if classes else "omit it")


def joined(updates: Sequence[Update]) -> Update:
    """The updates of a request in one."""

    def along(parts: Sequence[Tensor | None]) -> Tensor | None:
        there = [part for part in parts if part is not None]
        return torch.cat(there) if there else None

    tops = [update.top for update in updates if update.top is not None]
    tokens, log_prob = (torch.cat(list(part)) for part in list(zip(*updates, strict=True))[1:3])
    return Update(
        updates[0].request,
        tokens,
        log_prob,
        "".join(update.text for update in updates),
        updates[-1].finish,
        along([update.processed_log_prob for update in updates]),
        Alternatives(*map(torch.cat, zip(*tops, strict=True))) if tops else None,
    )
