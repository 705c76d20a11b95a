"""Ancestral sampling: score, apply the rules, draw, advance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.core import Autoregressor, device_of, token_log_prob
from arlm.errors import UserError, require
from arlm.sampling.noise import draw, uniform_noise
from arlm.sampling.processors import Rule

SCORED_TOGETHER = 64  # positions


class Generated(NamedTuple):
    """Sampled rows and what the network, without the rules, thinks of them."""

    tokens: Tensor  # (B, T) int64
    log_prob: Tensor  # (B, T) nats; 0 after the end of a row


def generate(
    net: Autoregressor,
    seeds: Sequence[int],
    length: int | None = None,
    *,
    rules: Sequence[Rule] = (),
    forced: Tensor | None = None,
    context: Tensor | None = None,
    progress: Callable[[int], object] | None = None,
) -> Generated:
    """Draw one row of `length` tokens for each seed.

    Args:
        net: is put into eval mode meanwhile.
        seeds: one for each row; see `row_seeds`.
        length: tokens in a row; by default that of `forced`, else `net.spec.length`.
        rules: applied to the logits in order.
        forced: (B, T) int64 with -1 where free, at most `length` long: a prompt, the given part of an
            image, or a whole row to be scored.
        context: (B, S) int64, or None.
        progress: called with the number of positions that are done since the last call.

    Returns:
        tokens and log-probabilities, (B, length) each. After `eos_id` a row holds `pad_id`.
    """
    with at_rest(net):
        free, noise = begin(net, seeds, length, forced)
        told = progress or (lambda done: None)
        result = None if rules else net.roll_out(noise, free, context, told)
        if result is None:
            result = _loop(net, noise, rules, free, context, told)
    return Generated(*(value.clone() for value in result))  # clones may enter autograd again


@contextmanager
def at_rest(net: Autoregressor) -> Iterator[None]:
    """Eval mode, no gradients and full precision meanwhile, wherever a Trainer may be calling from."""
    training = net.training
    net.eval()
    try:
        with torch.inference_mode(), torch.autocast(device_of(net).type, enabled=False):
            yield
    finally:
        net.train(training)


def begin(
    net: Autoregressor, seeds: Sequence[int], length: int | None, forced: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Check what was asked for; forced tokens (B, T) with -1 where free, and the noise (B, T)."""
    if length is None:
        length = net.spec.length if forced is None else forced.shape[1]
    _check(net, seeds, length, forced)
    device = device_of(net)
    free = torch.full((len(seeds), length), -1, device=device)
    if forced is not None:
        free = F.pad(forced.to(device), (0, length - forced.shape[1]), value=-1)
    return free.expand(len(seeds), -1), uniform_noise(seeds, length).to(device)


def _check(net: Autoregressor, seeds: Sequence[int], length: int, forced: Tensor | None) -> None:
    require(len(seeds) >= 1, "n", len(seeds), "choose at least 1")
    check_length(net, length)
    if forced is not None and forced.shape[1] > length:
        raise UserError(
            f"prompt: {forced.shape[1]} tokens are longer than the row of {length}; "
            "shorten the prompt or raise the length"
        )


def check_length(net: Autoregressor, length: int) -> None:
    """Refuse rows that the network cannot hold."""
    require(length >= 1, "length", length, "choose at least 1")
    if net.max_length is not None and length > net.max_length:
        raise UserError(
            f"length: {length} tokens do not fit the network, which holds {net.max_length}; "
            f"choose at most {net.max_length}"
        )


def _loop(
    net: Autoregressor,
    noise: Tensor,
    rules: Sequence[Rule],
    forced: Tensor,
    context: Tensor | None,
    progress: Callable[[int], object],
) -> tuple[Tensor, Tensor]:
    batch, length = forced.shape
    tokens, device = forced.clone(), forced.device
    log_prob = torch.zeros(forced.shape, dtype=torch.float64, device=device)
    end, pad = net.spec.eos_id, net.spec.pad_id
    ended = torch.zeros(batch, dtype=torch.bool, device=device)
    logits, state = net.start(batch, length, context)
    given = forced >= 0
    prompt = int(given.all(0).cumprod(0).sum())  # columns that nobody has to draw
    somewhere = given.any(0).tolist()
    waiting: list[Tensor] = []  # logits of the last positions, to be scored together

    def score(after: int) -> None:
        scores = torch.stack(waiting, dim=1)
        done = slice(after - len(waiting), after)
        log_prob[:, done] = token_log_prob(scores, tokens[:, done]).double()
        waiting.clear()

    if prompt:
        chunk, state = net.advance(forced[:, : min(prompt, length - 1)], state)
        scores = torch.cat([logits[:, None], chunk], dim=1)
        log_prob[:, :prompt] = token_log_prob(scores[:, :prompt], forced[:, :prompt]).double()
        logits = scores[:, -1]
        progress(prompt)
    together = max(1, min(SCORED_TOGETHER, 2**22 // logits.numel()))
    for t in range(prompt, length):
        waiting.append(logits)
        free = logits
        for rule in rules:
            free = rule(free, tokens[:, :t])
        token = draw(free, noise[:, t])
        if somewhere[t]:
            token = torch.where(given[:, t], forced[:, t], token)
        if end is not None:
            token = token.masked_fill(ended, end if pad is None else pad)
            ended |= token == end
        tokens[:, t] = token
        progress(1)
        if len(waiting) == together or t + 1 == length:
            score(t + 1)
        if end is not None and bool(ended.all()):
            if waiting:
                score(t + 1)
            tokens[:, t + 1 :] = end if pad is None else pad
            break
        if t + 1 < length:
            logits, state = net.advance(token[:, None], state)
            logits = logits[:, 0]
    if end is not None:
        after = (tokens[:, prompt:] == end).cumsum(1)[:, :-1] > 0
        log_prob[:, prompt + 1 :].masked_fill_(after, 0.0)
    return tokens, log_prob


@dataclass(frozen=True)
class Sampler:
    """`generate` with its rules chosen, for configuration files.

    Args:
        rules: applied to the logits in order; none samples from the network as it is.
    """

    rules: Sequence[Rule] = ()

    def __call__(self, net: Autoregressor, seeds: Sequence[int], **arguments) -> Generated:
        """As `generate`; without a context, labels in turn where the network needs one."""
        arguments.setdefault("context", labels_in_turn(net, len(seeds)))
        return generate(net, seeds, rules=self.rules, **arguments)


def labels_in_turn(net: Autoregressor, rows: int) -> Tensor | None:
    """Class labels 0, 1, 2, ... and over again, (rows, 1); None for a network without them."""
    context = net.spec.context
    if context is None or context.shape != (1,):
        return None
    return (torch.arange(rows, device=device_of(net)) % context.vocab_size)[:, None]
