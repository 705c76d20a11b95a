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
from arlm.sampling import Noise, Speculation, Uniform, begin_steps, kept, prepare, speculate
from arlm.sampling.processors import LogitsProcessor

BLOCK = 16  # tokens that are drawn between two looks at the text


class Written(NamedTuple):
    """A text, its prompt included."""

    text: str
    tokens: int  # that were drawn; after a stop string, a few of them are not in the text
    nats: float  # -log p of the drawn tokens under the network, without processors


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
    context: Tensor | None = None,
    stop: Sequence[str] = (),
    noise: Noise = Uniform(),  # noqa: B008  (frozen)
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
        context: (B, S), or None.
        stop: strings that end a text where they first occur after its prompt; they are not part of it.
        noise: turns seeds, positions and logits into tokens.
        speculation: a draft; it changes no text.
        show: called with each piece of the text as soon as it is final; for a single prompt.
        progress: called with the number of tokens drawn since the last call.
    """
    lengths = row_lengths(net, prompts, new_tokens)
    free, of_rows = prepare(net, seeds, max(lengths), forced_rows(prompts))
    limits = torch.tensor(lengths, device=free.device)
    block = BLOCK if show is None else 1
    steps = begin_steps(net, free, of_rows, processors, context, limits, block, noise)
    if speculation is not None:
        steps = speculate(steps, speculation)
    texts, done = [""] * len(prompts), 0
    for piece in stream(steps, decode, stop):
        texts[piece.row] += piece.text
        if show:
            show(piece.text)
        now = int((steps.state.lengths - steps.state.prompt_lengths).sum())
        if progress:
            progress(now - done)
        done = now
    drawn = (steps.state.lengths - steps.state.prompt_lengths).tolist()
    return list(map(Written, texts, drawn, _nats(steps.state.log_prob, prompts)))


def _nats(log_prob: Tensor, prompts: Sequence[Tensor]) -> Iterator[float]:
    for row, prompt in zip(log_prob, prompts, strict=True):
        yield -float(row[len(prompt) :].sum())
