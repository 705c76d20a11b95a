"""Ancestral sampling: whole rows, drawn token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.core import Autoregressor, Spec, device_of
from arlm.errors import UserError, require
from arlm.sampling.chain import refuse_undefined
from arlm.sampling.details import Alternatives, Collected, Details
from arlm.sampling.finish import finish_reasons
from arlm.sampling.inference_context import inference_context
from arlm.sampling.noise import Noise, Uniform, seed_tensor, uniform_noise
from arlm.sampling.processors import LogitsProcessor, MemoryProcessor, name_of, rule_of
from arlm.sampling.sliding import begin_steps, check_slides
from arlm.sampling.steps import SCORED_TOGETHER

if TYPE_CHECKING:
    from arlm.domains import Domain


@dataclass(frozen=True)
class Generated:
    """Sampled rows, which unpack as tokens and their log-probabilities: `tokens, log_prob = generate(...)`."""

    tokens: Tensor  # (B, T) int64
    log_prob: (
        Tensor  # (B, T) nats under the network without the processors; 0 after the end of a row
    )
    lengths: Tensor  # (B,) int64, tokens of each row, its prompt included
    finish: tuple[str | None, ...]  # of each row: "end", "length", "stop" or "constraint"
    processed_log_prob: Tensor | None = None  # (B, T) nats after the processors; 0 in a prompt
    top: Alternatives | None = None  # (B, T, K); in a prompt and after an end, token 0 and 0 nats

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.tokens, self.log_prob))


@runtime_checkable
class SamplesRows(Protocol):
    """A network that can draw whole rows faster than by `advance`."""

    def sample_rows(
        self,
        noise: Tensor,
        forced: Tensor,
        context: Tensor | None,
        progress: Callable[[int], object],
        rules: Sequence[tuple[str, float]] = (),
    ) -> tuple[Tensor, Tensor] | None:
        """Draw whole rows.

        Args:
            noise: (B, T) float64 in [0, 1), turned into tokens as `arlm.sampling.noise.draw` does.
            forced: (B, T) int64, -1 where a token is to be drawn.
            context: as for `forward`.
            progress: called with the number of positions done since the last call.
            rules: of the processors; see `LogitsProcessor.rule`.

        Returns: tokens and log-probabilities (B, T) without the rules, or None where `advance` has to be used.
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
    noise: Noise = Uniform(),  # noqa: B008  (frozen)
    stop_tokens: Sequence[int] = (),
    processed: bool = False,
    top: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Generated:
    """Draw one row of `length` tokens for each seed.

    Texts may be longer than the network's window, which slides; see `arlm.sampling.sliding`.

    Args:
        net: is put into eval mode while sampling.
        seeds: one for each row; see `row_seeds`.
        length: tokens in a row; by default that of `forced`, else `net.spec.length`.
        processors: applied to the logits in order.
        forced: (B, T) int64 with -1 where free, at most `length` long: a prompt for each row, which may
            differ in length, the given part of an image, or a whole row to be scored.
        context: (B, S) int64, or None.
        lengths: most tokens of each row, its prompt included.
        noise: turns seeds, positions and logits into tokens.
        stop_tokens: tokens that end a row, as its last one, like the end token.
        processed: also return log-probabilities under the processed distribution.
        top: number of alternatives of each drawn token to return; see `Details`.
        progress: called with the number of positions done since the last call.

    Returns:
        tokens and log-probabilities, (B, length) each, and why each row ended. After its end, a row holds `pad_id`, or `eos_id`
        where there is no padding, or 0; padding is never drawn.
    """
    report, details = progress or (lambda positions: None), Details(processed, top)
    with inference_context(net):
        free, of_rows = prepare(net, seeds, length, forced)
        result = None
        rules = [rule for each in processors if (rule := rule_of(each)) is not None]
        plain = not (stop_tokens or details) and lengths is None and noise == Uniform()
        if plain and len(rules) == len(processors) and isinstance(net, SamplesRows):
            numbers = uniform_noise(of_rows, free.shape[1])
            more: dict[str, Any] = {"rules": rules} if rules else {}
            result = net.sample_rows(numbers, free, context, report, **more)
    if result is not None:
        tokens, log_prob = (value.clone() for value in result)  # clones may enter autograd again
        refuse_undefined(log_prob, free < 0, torch.zeros_like(of_rows))
        count, size = tokens.shape
        return Generated(tokens, log_prob, tokens.new_full((count,), size), ("length",) * count)
    limits = None if lengths is None else torch.tensor(lengths, device=free.device)
    steps = begin_steps(
        *(net, free, of_rows, processors, context, limits, SCORED_TOGETHER),
        noise=noise,
        stop_tokens=stop_tokens,
        details=details,
    )
    done = int(steps.state.lengths.max())
    report(done)
    collected = Collected(details, free)
    for block in steps:
        before, done = done, int(steps.state.lengths.max())
        report(done - before)
        collected.add(block)
    state = steps.state
    return Generated(
        *(state.tokens.clone(), state.log_prob.clone(), state.lengths.clone()),
        tuple(finish_reasons(state, net.spec)),
        *collected.parts,
    )


def prepare(
    net: Autoregressor, seeds: Sequence[int], length: int | None, forced: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Check a request. Returns forced tokens (B, T) with -1 where free, and the seeds (B,)."""
    if length is None:
        length = net.spec.length if forced is None else forced.shape[1]
    require(len(seeds) >= 1, "n", len(seeds), "choose at least 1")
    require(length >= 1, "length", length, "choose at least 1")
    check_slides(net, length)
    if forced is not None and forced.shape[1] > length:
        raise UserError(
            f"prompt: {forced.shape[1]} tokens are longer than the row of {length}; "
            "shorten the prompt or raise the length"
        )
    device = device_of(net)
    free = torch.full((len(seeds), length), -1, device=device)
    if forced is not None:
        free = F.pad(forced.to(device), (0, length - forced.shape[1]), value=-1)
    return free.expand(len(seeds), -1), seed_tensor(seeds, device)


@runtime_checkable
class ChecksDrawn(Protocol):
    """A network that is not drawn token by token; see `arlm.layers.context_reader`."""

    def check_drawn(self, length: int) -> None:
        """Raise a UserError for rows of a length that it cannot draw."""


def check_length(net: Autoregressor, length: int) -> None:
    """Raise a UserError for rows that are longer than the network allows, or that it cannot draw."""
    require(length >= 1, "length", length, "choose at least 1")
    if net.max_length is not None and length > net.max_length:
        raise UserError(
            f"length: {length} tokens do not fit the network, which holds {net.max_length}; "
            f"choose at most {net.max_length}"
        )
    if isinstance(net, ChecksDrawn):
        net.check_drawn(length)


@dataclass(frozen=True)
class Sampler:
    """`generate` with fixed processors, for configuration files.

    Args:
        processors: applied to the logits in order; none samples from the network's own distribution.
    """

    processors: Sequence[LogitsProcessor] = ()

    def bind(self, domain: Domain, spec: Spec) -> Sampler:
        """The sampler with its processors bound to the domain, for rows of one length where nothing ends a row."""
        bound = tuple(processor.bind(domain) for processor in self.processors)
        for one in bound:
            if spec.eos_id is None and isinstance(one, MemoryProcessor):
                if one.finished(one.init(1, torch.device("cpu"))) is None:
                    continue
                raise UserError(
                    f"model.sampler: {name_of(type(one))} ends rows, but the samples of a run whose data has no end "
                    "token have one length; omit it, and draw with `arlm sample`"
                )
        return replace(self, processors=bound)

    def __call__(self, net: Autoregressor, seeds: Sequence[int], **arguments) -> Generated:
        """As `generate`; the default context of networks with classes is 0, 1, 2, ... in turn."""
        arguments.setdefault("context", class_labels(net, None, len(seeds)))
        return generate(net, seeds, processors=self.processors, **arguments)


def class_count(spec: Spec) -> int:
    """Number of classes that rows are conditioned on, without the null class; 0 for data without labels."""
    context = spec.context
    if context is None or context.kind != "label":
        return 0
    return context.vocab_size - (context.null_id is not None)


def class_labels(net: Autoregressor, label: int | None, rows: int, first: int = 0) -> Tensor | None:
    """The class of each row as a context (rows, 1): `label` for all, or with None 0, 1, 2, ... in turn.

    Args:
        net: the network.
        label: the class, or None.
        rows: number of rows.
        first: number of the first one.

    Returns None for a network without classes.
    """
    classes = class_count(net.spec)
    if label is None:
        if not classes:
            return None
        return (torch.arange(first, first + rows, device=device_of(net)) % classes)[:, None]
    if not classes:
        raise UserError(f"--label: {label} given, but the checkpoint has no classes; omit it")
    require(0 <= label < classes, "--label", label, f"choose 0 to {classes - 1}")
    return torch.full((rows, 1), label, device=device_of(net))
