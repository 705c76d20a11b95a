"""Fixed-point decoding (Jacobi iteration): whole rows in parallel, repeated until nothing changes.

With the noise fixed, a sample is the only solution of x_t = draw(processors(logits_t(x_<t)), noise_t) for all
t. Iteration from any guess settles position t after at most t + 1 passes, and usually far sooner, since most
tokens do not depend on the last few. The solution is the sample that `generate` draws token by token.

References:
    | Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving (Song et al., 2021),
    | Jacobi iteration | https://arxiv.org/abs/2002.03629
    | Predictive Sampling with Forecasting Autoregressive Models (Wiggers, Hoogeboom, 2020)
    | https://arxiv.org/abs/2002.09928
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec, token_log_prob
from arlm.sampling.chain import (
    apply_all,
    new_memories,
    observe_all,
    refuse_masked,
    refuse_undefined,
)
from arlm.sampling.finish import Finish, finished
from arlm.sampling.generate import check_length, prepare
from arlm.sampling.inference_context import inference_context
from arlm.sampling.noise import Noise, Uniform
from arlm.sampling.processors import History, LogitsProcessor, drawable
from arlm.sampling.steps import filler, without_padding


class FixedPoint(NamedTuple):
    """As `Generated`, with the number of passes of the network that were needed."""

    tokens: Tensor  # (B, T) int64
    log_prob: Tensor  # (B, T) nats; 0 after the end of a row
    passes: int
    lengths: Tensor  # (B,) int64, tokens of each row
    finish: tuple[str, ...]  # of each row: "end", "length" or "constraint"


def fixed_point(
    net: Autoregressor,
    seeds: Sequence[int],
    length: int | None = None,
    *,
    processors: Sequence[LogitsProcessor] = (),
    forced: Tensor | None = None,
    context: Tensor | None = None,
    noise: Noise = Uniform(),  # noqa: B008  (frozen)
    progress: Callable[[int], object] | None = None,
) -> FixedPoint:
    """Draw the same rows as `generate`, by whole passes of `net.forward`.

    The arguments are those of `generate` without `lengths`, `stop_tokens`, `processed` and `top`; `progress` is called with the number of positions that settled in
    every row since the last call. Rows that have settled leave the batch.
    """
    with inference_context(net):
        forced, of_rows = prepare(net, seeds, length, forced)
        check_length(net, forced.shape[1])
        given = forced >= 0
        prompt_lengths = given.long().cumprod(1).sum(1)
        tokens = torch.where(given, forced, 0)
        log_prob = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
        active = torch.arange(len(tokens), device=tokens.device)
        lengths = torch.full_like(active, tokens.shape[1])
        reasons = torch.full_like(active, Finish.LENGTH)
        passes = settled = 0
        while len(active):
            guess = tokens[active]
            logits = net(guess, context if context is None else context[active])
            passes += 1
            log_prob[active] = token_log_prob(logits, guess).double()
            rows = (guess, prompt_lengths[active], of_rows[active])
            drawn, over, masked = _drawn(net, logits, *rows, processors, noise)
            drawn = torch.where(given[active], forced[active], drawn)
            stopped = over.any(1)
            drawn, over = _ended(drawn, over[:, :-1], prompt_lengths[active], net.spec)
            lengths[active] = (~over).sum(1)
            reasons[active] = torch.where(stopped, Finish.CONSTRAINT, Finish.LENGTH)
            log_prob[active] = log_prob[active].masked_fill(over, 0.0)
            tokens[active] = drawn
            same = drawn == guess
            for t, impossible, outputs in masked:  # of a row's own prefix, not of a guess
                final = same[:, :t].all(1) & ~(given[active] | over)[:, t]
                refuse_masked(
                    processors, outputs, impossible & final, torch.full_like(active, t), active
                )
            final = same.all(1)[:, None] & ~(given[active] | over)
            refuse_undefined(log_prob[active], final, torch.zeros_like(active), active)
            active = active[~same.all(1)]
            # The first position that changed is correct now: all before it had settled.
            first = int((same.cumprod(1).sum(1) + 1).min()) if len(active) else tokens.shape[1]
            if progress and first > settled:
                progress(first - settled)
                settled = first
        if net.spec.eos_id is not None:
            free = torch.arange(tokens.shape[1], device=tokens.device) >= prompt_lengths[:, None]
            reasons[((tokens == net.spec.eos_id) & free).any(1)] = Finish.END
    names = tuple(Finish(reason).label for reason in reasons.tolist())
    return FixedPoint(tokens.clone(), log_prob.clone(), passes, lengths.clone(), names)


def _drawn(
    net: Autoregressor,
    logits: Tensor,
    tokens: Tensor,
    prompt_lengths: Tensor,
    seeds: Tensor,
    processors: Sequence[LogitsProcessor],
    noise: Noise,
) -> tuple[Tensor, Tensor, list[tuple[int, Tensor, list[Tensor]]]]:
    """Draw every position, each with the history before it.

    Returns: tokens (B, T); whether the processors have finished the row before a position, (B, T + 1) bool, the last
    one after all tokens; and for each position with rows that have no token to draw: the position, these rows (B,)
    bool, and the logits (B, V) before the processors and after each.
    """
    logits = without_padding(logits, net.spec)
    rows, device = len(tokens), tokens.device
    over = torch.zeros(rows, tokens.shape[1] + 1, dtype=torch.bool, device=device)
    numbers = noise.numbers(seeds, torch.arange(tokens.shape[1], device=device).expand_as(tokens))
    if not processors and not noise.reads_history:
        drawn = noise.draw(logits.flatten(0, 1), numbers.flatten(), None)
        drawn = drawn.clamp(max=logits.shape[-1] - 1)  # any token without a distribution
        return drawn.view(tokens.shape), over, []
    memories = new_memories(processors, rows, device)
    columns, masked = [], []
    for t, column in enumerate(logits.unbind(1)):
        lengths = torch.full((rows,), t, device=device)
        history = History(tokens, lengths, prompt_lengths, net.spec, seeds)
        ends = finished(processors, memories) if net.spec.eos_id is None else None
        if ends is not None:
            over[:, t] = ends
        outputs = [column, *apply_all(processors, column, history, memories)]
        observed = t >= prompt_lengths
        memories = observe_all(processors, tokens[:, t], outputs[1:], memories, observed)
        column = outputs[-1]
        token = noise.draw(column, numbers[:, t], history)
        if processors and not bool((possible := drawable(column, token)).all()):
            masked.append((t, ~possible, outputs))
            token = token.clamp(max=column.shape[1] - 1)
        columns.append(token)
    if net.spec.eos_id is None and (ends := finished(processors, memories)) is not None:
        over[:, -1] = ends
    return torch.stack(columns, dim=1), over, masked


def _ended(tokens: Tensor, over: Tensor, prompts: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    """Rows with the filler where they are `over` or after the first end token behind their prompts (B,).

    Returns: tokens (B, T), and a mask of the filled positions.
    """
    if spec.eos_id is not None:
        columns = torch.arange(tokens.shape[1], device=tokens.device)
        ends = (tokens == spec.eos_id) & (columns >= prompts[:, None])
        over = over | (ends.cumsum(1) - ends.long() > 0)
    return tokens.masked_fill(over, filler(spec)), over
