"""Texts drawn after prompts, up to their stop strings: what `arlm sample` prints for language models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from arlm.core import Autoregressor
from arlm.inference.completer import stream
from arlm.sampling import (
    Alternatives,
    Details,
    Noise,
    SamplerState,
    Speculation,
    Uniform,
    begin_steps,
    kept,
    prepare,
    speculate,
)
from arlm.sampling.details import Collected
from arlm.sampling.processors import LogitsProcessor

BLOCK = 16  # tokens that are drawn between two looks at the text


class DrawnTokens(NamedTuple):
    """The n drawn tokens of a text."""

    tokens: Tensor  # (n,) int64
    log_prob: Tensor  # (n,) nats under the network
    processed_log_prob: Tensor  # (n,) nats under the distribution that they come from
    top: Alternatives  # (n, K)


class Written(NamedTuple):
    """A text, its prompt included."""

    text: str
    tokens: (
        int  # that were drawn, to the one that completes a stop string, which is not in the text
    )
    nats: float  # -log p of the drawn tokens under the network, without processors
    finish: str | None = None  # why it ended: "end", "length", "stop" or "constraint"
    drawn: DrawnTokens | None = None  # the tokens, where alternatives were asked for


def row_lengths(net: Autoregressor, prompts: Sequence[Tensor], new: int | None) -> list[int]:
    """Most tokens of each row, prompt (P,) included: `new` more than its prompt.

    By default, rows have the length of the network's own, or that many tokens more than a prompt that fills one.
    """
    own = net.spec.length
    sizes = [len(prompt) for prompt in prompts]
    if new is not None:
        return [size + new for size in sizes]
    return [own if size < own else size + own for size in sizes]


def forced_rows(prompts: Sequence[Tensor]) -> Tensor | None:
    """Prompts of several lengths as (B, P) with -1 beyond their ends; None if all are empty."""
    if not any(map(len, prompts)):
        return None
    return pad_sequence(list(prompts), batch_first=True, padding_value=-1)


def announce_slides(net: Autoregressor, length: int) -> None:
    """Say on stderr what is read again for rows of `length` tokens, if they are longer than the window."""
    window = net.max_length
    if window is not None and length > window:
        again = kept(window)
        print(
            f"note: {length} tokens are more than the network's window of {window}; it slides, and every "
            f"{window - again} tokens the last {again} are read again",
            file=sys.stderr,
        )


def written(
    net: Autoregressor,
    decode: Callable[[Tensor], str],
    prompts: Sequence[Tensor],
    seeds: Sequence[int],
    new_tokens: int | None = None,
    *,
    processors: Sequence[LogitsProcessor] = (),
    noise: Noise = Uniform(),  # noqa: B008  (frozen)
    context: Tensor | None = None,
    stop: Sequence[str] = (),
    top: int = 0,
    speculation: Speculation | None = None,
    show: Callable[[str], object] | None = None,
    progress: Callable[[int], object] | None = None,
) -> list[Written]:
    """Draw a text after each prompt.

    Args:
        net: a network of texts.
        decode: tokens (T,) -> str; see `stream`.
        prompts: (P,) int64 each, of any length.
        seeds: one for each prompt; see `row_seeds`.
        new_tokens: most tokens to draw after each prompt; see `row_lengths`.
        processors: applied to the logits in order.
        noise: turns seeds, positions and logits into tokens.
        context: (B, S), or None.
        stop: strings that end a text where they first occur after its prompt; they are not part of it.
        top: number of alternatives of each token; see `DrawnTokens`.
        speculation: a draft; it changes no text, and shows no alternatives.
        show: called with each piece of the text as soon as it is final; for a single prompt.
        progress: called with the number of tokens drawn since the last call.
    """
    lengths = row_lengths(net, prompts, new_tokens)
    free, of_rows = prepare(net, seeds, max(lengths), forced_rows(prompts))
    limits = torch.tensor(lengths, device=free.device)
    block = BLOCK if show is None else 1
    details = Details(processed=top > 0, top=top)
    steps = begin_steps(
        *(net, free, of_rows, processors, context, limits, block, noise), details=details
    )
    if speculation is not None:
        steps = speculate(steps, speculation)
    texts, done, collected = [""] * len(prompts), 0, Collected(details, free)
    reasons: list[str | None] = [None] * len(prompts)
    for piece in stream(steps, decode, stop, collected.add):
        texts[piece.row] += piece.text
        reasons[piece.row] = piece.finish
        if show:
            show(piece.text)
        now = int((steps.state.lengths - steps.state.prompt_lengths).sum())
        if progress:
            progress(now - done)
        done = now
    state = steps.state
    drawn = (state.lengths - state.prompt_lengths).tolist()
    each = [_drawn(state, row, *collected.parts) for row in range(len(prompts))]
    nats = _nats(state.log_prob, prompts)
    return list(map(Written, texts, drawn, nats, reasons, each))


def _drawn(
    state: SamplerState, row: int, processed: Tensor | None, top: Alternatives | None
) -> DrawnTokens | None:
    """The drawn tokens of a row, on the CPU; None without alternatives."""
    if processed is None or top is None:
        return None
    inside = slice(int(state.prompt_lengths[row]), int(state.lengths[row]))
    return DrawnTokens(
        state.tokens[row, inside].cpu(),
        state.log_prob[row, inside].cpu(),
        processed[row, inside].cpu(),
        Alternatives(*(part[row, inside].cpu() for part in top)),
    )


def _nats(log_prob: Tensor, prompts: Sequence[Tensor]) -> Iterator[float]:
    for row, prompt in zip(log_prob, prompts, strict=True):
        yield -float(row[len(prompt) :].sum())
