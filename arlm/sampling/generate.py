"""Ancestral sampling: score the next token, apply the logits processors, draw, advance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.core import Autoregressor, Spec, device_of, token_log_prob
from arlm.errors import UserError, require
from arlm.sampling.noise import draw, uniform_noise
from arlm.sampling.processors import LogitsProcessor

SCORED_TOGETHER = 64  # positions whose drawn tokens are scored in one call


class Generated(NamedTuple):
    """Sampled rows, and their log-probabilities under the network without the processors."""

    tokens: Tensor  # (B, T) int64
    log_prob: Tensor  # (B, T) nats; 0 after the end of a row


@runtime_checkable
class SamplesRows(Protocol):
    """A network that can draw whole rows faster than by `advance`."""

    def sample_rows(
        self,
        noise: Tensor,
        forced: Tensor,
        context: Tensor | None,
        progress: Callable[[int], object],
    ) -> tuple[Tensor, Tensor] | None:
        """Draw whole rows.

        Args:
            noise: (B, T) float64 in [0, 1), turned into tokens as `arlm.sampling.noise.draw` does.
            forced: (B, T) int64, -1 where a token is to be drawn.
            context: as for `forward`.
            progress: called with the number of positions done since the last call.

        Returns: tokens and log-probabilities (B, T), or None where `advance` has to be used.
        """


def generate(
    net: Autoregressor,
    seeds: Sequence[int],
    length: int | None = None,
    *,
    processors: Sequence[LogitsProcessor] = (),
    forced: Tensor | None = None,
    context: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Generated:
    """Draw one row of `length` tokens for each seed.

    Args:
        net: is put into eval mode while sampling.
        seeds: one for each row; see `row_seeds`.
        length: tokens in a row; by default that of `forced`, else `net.spec.length`.
        processors: applied to the logits in order.
        forced: (B, T) int64 with -1 where free, at most `length` long: a prompt, the given part of an
            image, or a whole row to be scored.
        context: (B, S) int64, or None.
        lengths: maximal number of tokens of each row, for networks with an end token.
        progress: called with the number of positions done since the last call.

    Returns:
        tokens and log-probabilities, (B, length) each. After `eos_id` a row holds `pad_id`, or `eos_id`
        where there is no padding; padding is never drawn.
    """
    report = progress or (lambda positions: None)
    with inference_context(net):
        free, noise = prepare(net, seeds, length, forced)
        result = None
        if not processors and lengths is None and isinstance(net, SamplesRows):
            result = net.sample_rows(noise, free, context, report)
        if result is None:
            result = _loop(net, noise, processors, free, context, lengths, report)
    return Generated(*(value.clone() for value in result))  # clones may enter autograd again


@contextmanager
def inference_context(net: Autoregressor) -> Iterator[None]:
    """Eval mode, inference mode and full precision, also when called during a Trainer's run."""
    training = net.training
    net.eval()
    try:
        with torch.inference_mode(), torch.autocast(device_of(net).type, enabled=False):
            yield
    finally:
        net.train(training)


def prepare(
    net: Autoregressor, seeds: Sequence[int], length: int | None, forced: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Check a request. Returns forced tokens (B, T) with -1 where free, and the noise (B, T)."""
    if length is None:
        length = net.spec.length if forced is None else forced.shape[1]
    require(len(seeds) >= 1, "n", len(seeds), "choose at least 1")
    check_length(net, length)
    if forced is not None and forced.shape[1] > length:
        raise UserError(
            f"prompt: {forced.shape[1]} tokens are longer than the row of {length}; "
            "shorten the prompt or raise the length"
        )
    device = device_of(net)
    free = torch.full((len(seeds), length), -1, device=device)
    if forced is not None:
        free = F.pad(forced.to(device), (0, length - forced.shape[1]), value=-1)
    return free.expand(len(seeds), -1), uniform_noise(seeds, length).to(device)


def check_length(net: Autoregressor, length: int) -> None:
    """Raise a UserError for rows that are longer than the network allows."""
    require(length >= 1, "length", length, "choose at least 1")
    if net.max_length is not None and length > net.max_length:
        raise UserError(
            f"length: {length} tokens do not fit the network, which holds {net.max_length}; "
            f"choose at most {net.max_length}"
        )


def without_padding(logits: Tensor, spec: Spec) -> Tensor:
    """Logits (..., V) with the padding token at -inf, unless it is the end token too."""
    if spec.pad_id is None or spec.pad_id == spec.eos_id:
        return logits
    return logits.index_fill(-1, torch.tensor([spec.pad_id], device=logits.device), -math.inf)


def _loop(
    net: Autoregressor,
    noise: Tensor,
    processors: Sequence[LogitsProcessor],
    forced: Tensor,
    context: Tensor | None,
    lengths: Sequence[int] | None,
    progress: Callable[[int], object],
) -> tuple[Tensor, Tensor]:
    batch, length = forced.shape
    tokens, device = forced.clone(), forced.device
    log_prob = torch.zeros(forced.shape, dtype=torch.float64, device=device)
    end, pad = net.spec.eos_id, net.spec.pad_id
    filler = 0 if end is None else end if pad is None else pad
    limits = None if lengths is None else torch.tensor(lengths, device=device)
    if limits is not None and end is None:
        raise UserError("lengths: the network has no end token; give one length for all rows")
    ended = torch.zeros(batch, dtype=torch.bool, device=device)
    logits, state = net.start(batch, length, context)
    given = forced >= 0
    prompt = int(given.all(0).cumprod(0).sum())  # leading columns that are forced in every row
    any_forced = given.any(0).tolist()
    unscored: list[Tensor] = []  # logits of the last positions

    def score(after: int) -> None:
        scores = torch.stack(unscored, dim=1)
        done = slice(after - len(unscored), after)
        log_prob[:, done] = token_log_prob(scores, tokens[:, done]).double()
        unscored.clear()

    if prompt:
        chunk, state = net.advance(forced[:, : min(prompt, length - 1)], state)
        scores = torch.cat([logits[:, None], chunk], dim=1)
        log_prob[:, :prompt] = token_log_prob(scores[:, :prompt], forced[:, :prompt]).double()
        logits = scores[:, -1]
        progress(prompt)
    together = max(1, min(SCORED_TOGETHER, 2**22 // logits.numel()))
    for t in range(prompt, length):
        unscored.append(logits)
        processed = without_padding(logits, net.spec)
        for processor in processors:
            processed = processor(processed, tokens[:, :t])
        token = draw(processed, noise[:, t])
        if any_forced[t]:
            token = torch.where(given[:, t], forced[:, t], token)
        if end is not None:
            token = token.masked_fill(ended, filler)
            ended |= token == end
        if limits is not None:
            ended |= t + 1 >= limits
        tokens[:, t] = token
        progress(1)
        if len(unscored) == together or t + 1 == length:
            score(t + 1)
        if end is not None and bool(ended.all()):
            if unscored:
                score(t + 1)
            tokens[:, t + 1 :] = filler
            break
        if t + 1 < length:
            logits, state = net.advance(token[:, None], state)
            logits = logits[:, 0]
    if end is not None:
        after = (tokens[:, prompt:] == end).cumsum(1)[:, :-1] > 0
        log_prob[:, prompt + 1 :].masked_fill_(after, 0.0)
    if limits is not None:
        log_prob.masked_fill_(torch.arange(length, device=device) >= limits[:, None], 0.0)
    return tokens, log_prob


@dataclass(frozen=True)
class Sampler:
    """`generate` with fixed processors, for configuration files.

    Args:
        processors: applied to the logits in order; none samples from the network's own distribution.
    """

    processors: Sequence[LogitsProcessor] = ()

    def __call__(self, net: Autoregressor, seeds: Sequence[int], **arguments) -> Generated:
        """As `generate`; the default context of networks with classes is 0, 1, 2, ... in turn."""
        arguments.setdefault("context", class_labels(net, None, len(seeds)))
        return generate(net, seeds, processors=self.processors, **arguments)


def class_labels(net: Autoregressor, label: int | None, rows: int) -> Tensor | None:
    """The class of each row as a context (rows, 1): `label` for all, or with None 0, 1, 2, ... in turn.

    Returns None for a network without classes.
    """
    context = net.spec.context
    classes = 0 if context is None or context.shape != (1,) else context.vocab_size
    if label is None:
        if not classes:
            return None
        return (torch.arange(rows, device=device_of(net)) % classes)[:, None]
    if not classes:
        raise UserError(f"--label: {label} given, but the checkpoint has no classes; omit it")
    require(0 <= label < classes, "--label", label, f"choose 0 to {classes - 1}")
    return torch.full((rows, 1), label, device=device_of(net))
