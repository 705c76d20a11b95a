"""Ancestral sampling: score, apply the rules, draw, advance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.core import Autoregressor, device_of, token_log_prob
from arlm.errors import UserError, require
from arlm.rules import Rule
from arlm.sampling.noise import draw, uniform_noise


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
    if length is None:
        length = net.spec.length if forced is None else forced.shape[1]
    _check(net, seeds, length, forced)
    device, training = device_of(net), net.training
    net.eval()
    try:
        with torch.inference_mode():
            free = torch.full((len(seeds), length), -1, device=device)
            if forced is not None:
                free = F.pad(forced.to(device), (0, length - forced.shape[1]), value=-1)
            noise = uniform_noise(seeds, length).to(device)
            result = _loop(net, noise, rules, free, context, progress or (lambda done: None))
    finally:
        net.train(training)
    return Generated(*(value.clone() for value in result))  # clones may enter autograd again


def _check(net: Autoregressor, seeds: Sequence[int], length: int, forced: Tensor | None) -> None:
    require(len(seeds) >= 1, "n", len(seeds), "choose at least 1")
    require(length >= 1, "length", length, "choose at least 1")
    if net.max_length is not None and length > net.max_length:
        raise UserError(
            f"length: {length} tokens do not fit the network, which holds {net.max_length}; "
            f"choose at most {net.max_length}"
        )
    if forced is not None and forced.shape[1] > length:
        raise UserError(
            f"prompt: {forced.shape[1]} tokens are longer than the row of {length}; "
            "shorten the prompt or raise the length"
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
    tokens, log_prob = forced.clone(), torch.zeros(forced.shape, dtype=torch.float64)
    log_prob = log_prob.to(forced.device)
    end, pad = net.spec.eos_id, net.spec.pad_id
    ended = torch.zeros(batch, dtype=torch.bool, device=forced.device)
    logits, state = net.start(batch, length, context)

    given = forced >= 0
    prompt = int(given.all(0).cumprod(0).sum())  # columns that nobody has to draw
    somewhere = given.any(0).tolist()
    if prompt:
        chunk, state = net.advance(forced[:, : min(prompt, length - 1)], state)
        scores = torch.cat([logits[:, None], chunk], dim=1)
        log_prob[:, :prompt] = token_log_prob(scores[:, :prompt], forced[:, :prompt]).double()
        logits = scores[:, -1]
        progress(prompt)
    for t in range(prompt, length):
        free = logits
        for rule in rules:
            free = rule(free, tokens[:, :t])
        token = draw(free, noise[:, t])
        if somewhere[t]:
            token = torch.where(given[:, t], forced[:, t], token)
        log_prob[:, t] = token_log_prob(logits, token)
        if end is not None:
            log_prob[:, t].masked_fill_(ended, 0.0)
            token = token.masked_fill(ended, end if pad is None else pad)
            ended |= token == end
        tokens[:, t] = token
        progress(1)
        if end is not None and bool(ended.all()):
            tokens[:, t + 1 :] = end if pad is None else pad
            break
        if t + 1 < length:
            logits, state = net.advance(token[:, None], state)
            logits = logits[:, 0]
    return tokens, log_prob


@dataclass(frozen=True)
class Sampler:
    """`generate` with its rules chosen, for configuration files.

    Args:
        rules: applied to the logits in order; none samples from the network as it is.
    """

    rules: Sequence[Rule] = ()

    def __call__(self, net: Autoregressor, seeds: Sequence[int], **arguments) -> Generated:
        """As `generate`."""
        return generate(net, seeds, rules=self.rules, **arguments)
