"""Sampling step by step: score the next token, apply the logits processors, draw, advance.

    begin(...)   ->  SamplerState: rows with their prompts taken, each at its own position
    Steps(net, state, processors)    an iterator over blocks of drawn tokens:

        row 0   p p p p | x x | x x | x .      p prompt, x drawn, . ended
        row 1   p       | x x | x .            block 0, 1, 2: two positions each
        row 2   p p     | x x | x x | x x

Between two blocks the process and the network are as they were, so several samplers can take turns, and one can
be abandoned. Rows may be replaced there: `steps.state = steps.state.assign(rows, begin(...))`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec, device_of, token_log_prob
from arlm.errors import UserError
from arlm.sampling.noise import draw
from arlm.sampling.processors import History, LogitsProcessor, MemoryProcessor
from arlm.states import State, grows

BLOCK = 32  # positions whose drawn tokens are scored in one call


class Block(NamedTuple):
    """Tokens that were drawn in one resume of `Steps`."""

    rows: Tensor  # (B,) int64, the row numbers that `begin` was given
    positions: Tensor  # (B,) int64, position of the first token of each row
    tokens: Tensor  # (B, n) int64
    lengths: Tensor  # (B,) int64, how many of the n tokens each row took; 0 if it had ended
    log_prob: Tensor  # (B, n) nats under the network without processors; 0 beyond `lengths`


@dataclass(frozen=True)
class SamplerState(State):
    """Rows in the middle of being drawn."""

    network: State
    logits: Tensor  # (B, V) of each row's next token
    memories: tuple[Any, ...]  # of each processor; None if it has none
    tokens: Tensor = field(metadata=grows(1))  # (B, T) int64, the filler beyond `lengths`
    log_prob: Tensor = field(metadata=grows(1))  # (B, T) float64, 0 beyond `lengths`
    forced: Tensor = field(metadata=grows(1, fill=-1))  # (B, T) int64, -1 where free
    noise: Tensor = field(metadata=grows(1))  # (B, T) float64
    lengths: Tensor  # (B,) int64, tokens of each row
    prompt_lengths: Tensor  # (B,) int64
    limits: Tensor  # (B,) int64, most tokens of each row
    ended: Tensor  # (B,) bool
    rows: Tensor  # (B,) int64, row numbers

    @torch.inference_mode()
    def __getitem__(self, rows: Tensor | slice) -> SamplerState:
        return super().__getitem__(rows)

    @torch.inference_mode()
    def assign(self, rows: Tensor, other: SamplerState) -> SamplerState:
        return super().assign(rows, other)

    @torch.inference_mode()
    def concatenated(self, others: Sequence[SamplerState]) -> SamplerState:
        return super().concatenated(others)

    def end(self, rows: Tensor) -> SamplerState:
        """The state with some rows ended, (B,) bool."""
        return replace(self, ended=self.ended | rows)


def begin(
    net: Autoregressor,
    forced: Tensor,
    noise: Tensor,
    processors: Sequence[LogitsProcessor] = (),
    context: Tensor | None = None,
    limits: Tensor | None = None,
    rows: Tensor | None = None,
) -> SamplerState:
    """Start rows and take their prompts, the leading forced tokens of each row.

    Args:
        net: the network.
        forced: (B, T) int64, -1 where a token is to be drawn.
        noise: (B, T) float64 in [0, 1).
        processors: those that the rows will be drawn with.
        context: (B, S) int64, or None.
        limits: (B,) int64, most tokens of each row, at most T, which is the default.
        rows: (B,) int64, numbers for the rows, by default 0, 1, 2, ...
    """
    with inference_context(net):
        batch, length = forced.shape
        forced, noise = (
            forced.clone(),
            noise.clone(),
        )  # may be expanded; later rows are written over them
        logits, network = net.start(batch, length, context)
        leading = (forced >= 0).long().cumprod(1).sum(1)
        taken = leading.clamp(max=length - 1)
        if network.one_position:
            taken = taken.min().expand(batch)
        lengths = leading if not network.one_position else leading.min().repeat(batch)
        columns = torch.arange(length, device=forced.device)
        filler = _filler(net.spec)
        tokens = forced.where(columns < lengths[:, None], filler)
        log_prob = torch.zeros(batch, length, dtype=torch.float64, device=forced.device)
        most = int(taken.max())
        if most:
            even = bool((taken == most).all())
            chunk, network = net.advance(tokens[:, :most], network, None if even else taken)
            scores = torch.cat([logits[:, None], chunk], dim=1)
            logits = scores[torch.arange(batch, device=forced.device), taken]
            longest = int(lengths.max())
            nats = token_log_prob(scores[:, :longest], tokens[:, :longest]).double()
            log_prob[:, :longest] = nats.where(columns[:longest] < lengths[:, None], 0.0)
        most_tokens = torch.full_like(leading, length) if limits is None else limits.clone()
        number = torch.arange(batch, device=forced.device) if rows is None else rows.clone()
        parts = (tokens, log_prob, forced, noise, lengths, leading, most_tokens)
        memories = tuple(
            p.init(batch, forced.device) if isinstance(p, MemoryProcessor) else None
            for p in processors
        )
        ended = lengths >= most_tokens
        return SamplerState(
            network, logits.clone(), memories, *parts, ended, number, net=net.serial
        )


class Steps(Iterator[Block]):
    """Draws tokens block by block, until all rows have ended.

    Args:
        net: is put into eval mode while it draws.
        state: from `begin`; `steps.state` holds the rows between two blocks and may be replaced there.
        processors: applied to the logits in order.
        block: positions in a block, at most; fewer are drawn where a row reaches its limit.
    """

    def __init__(
        self,
        net: Autoregressor,
        state: SamplerState,
        processors: Sequence[LogitsProcessor] = (),
        block: int = 1,
    ) -> None:
        if state.net != net.serial:
            raise UserError("state: another network made it; begin the rows with this network")
        self.net, self.state, self.processors, self.block = net, state, processors, block

    def __next__(self) -> Block:
        with inference_context(self.net):
            if bool(self.state.ended.all()):
                raise StopIteration
            block = self._draw_block()
        return Block(*(part.clone() for part in block))  # clones may enter autograd again

    def _draw_block(self) -> Block:
        s, end, filler = self.state, self.net.spec.eos_id, _filler(self.net.spec)
        first, lengths, ended, logits = s.lengths, s.lengths, s.ended, s.logits
        live = ~ended
        # Nobody reaches a limit before the last of `count` positions.
        left = int((s.limits - lengths)[live].min())
        count = min(self.block, left, max(1, 2**22 // logits.numel()))
        offsets = torch.arange(count, device=lengths.device)
        columns = (first[:, None] + offsets).clamp(max=s.tokens.shape[1] - 1)
        noise, forced = s.noise.gather(1, columns), s.forced.gather(1, columns)
        given = forced >= 0
        any_given, any_ended = given.any(0).tolist(), not bool(live.all())
        drawn, scores, counted = [], [], []
        network, memories, tokens = s.network, s.memories, s.tokens
        for i in range(count):
            drawn_before = lengths >= s.prompt_lengths if any_given[i] else None
            history = History(tokens, lengths, s.prompt_lengths, self.net.spec)
            shaped, outputs = self._process(logits, history, memories)
            token = draw(shaped, noise[:, i])
            if any_given[i]:
                token = torch.where(given[:, i], forced[:, i], token)
            column = columns[:, i : i + 1]
            written = token
            if any_ended:
                token = token.masked_fill(ended, filler)
                written = token.where(live, tokens.gather(1, column).squeeze(1))
            tokens.scatter_(1, column, written[:, None])
            memories = self._observe(token, outputs, memories, drawn_before, ended, any_ended)
            drawn.append(token)
            scores.append(logits)
            counted.append(live)
            lengths = lengths + live if any_ended else lengths + 1
            if i + 1 == count:
                ended = ended | (lengths >= s.limits)
            if end is not None:
                ended = ended | ((token == end) & live)
            if end is not None or i + 1 == count:
                live = ~ended
                any_ended = bool(ended.any())
                if any_ended and not bool(live.any()):
                    break
            chunk, network = self.net.advance(
                token[:, None], network, live.long() if any_ended else None
            )
            logits = chunk[:, 0]
        each = torch.stack(drawn, dim=1)
        inside = torch.stack(counted, dim=1)
        nats = token_log_prob(torch.stack(scores, dim=1), each).double().where(inside, 0.0)
        log_prob = s.log_prob.scatter_add_(1, columns[:, : len(drawn)], nats)
        self.state = replace(
            s,
            network=network,
            logits=logits,
            memories=memories,
            tokens=tokens,
            log_prob=log_prob,
            lengths=lengths,
            ended=ended,
        )
        return Block(s.rows, first, each, inside.sum(1), nats)

    def _process(
        self, logits: Tensor, history: History, memories: tuple[Any, ...]
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits after all processors, and after each of them."""
        shaped, outputs = without_padding(logits, self.net.spec), []
        for processor, memory in zip(self.processors, memories, strict=True):
            shaped = apply(processor, shaped, history, memory)
            outputs.append(shaped)
        return shaped, outputs

    def _observe(
        self,
        token: Tensor,
        outputs: list[Tensor],
        memories: tuple[Any, ...],
        after_prompt: Tensor | None,
        ended: Tensor,
        any_ended: bool,
    ) -> tuple[Any, ...]:
        """The processors' memories after the token; prompts and ended rows do not change them."""
        observed = after_prompt
        if any_ended:
            observed = ~ended if observed is None else observed & ~ended
        new = []
        for processor, output, memory in zip(self.processors, outputs, memories, strict=True):
            if isinstance(processor, MemoryProcessor):
                after = processor.observe(token, output, memory)
                memory = after if observed is None else choose(observed, after, memory)
            new.append(memory)
        return tuple(new)


def apply(processor: LogitsProcessor, logits: Tensor, history: History, memory: Any) -> Tensor:
    """Logits after a processor, with or without memory."""
    if isinstance(processor, MemoryProcessor):
        return processor(logits, history, memory)
    return processor(logits, history)


def choose(rows: Tensor, a: Any, b: Any) -> Any:
    """Nested tuples of tensors: `a` in the rows (B,) where it is true, else `b`."""
    if isinstance(a, tuple):
        return tuple(choose(rows, x, y) for x, y in zip(a, b, strict=True))
    return torch.where(rows.view(-1, *[1] * (a.ndim - 1)), a, b)


@contextmanager
def inference_context(net: Autoregressor) -> Iterator[None]:
    """Eval mode, inference mode and full precision, also when called during a Trainer's run."""
    training = [module for module in net.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.inference_mode(), torch.autocast(device_of(net).type, enabled=False):
            yield
    finally:
        for module in training:
            module.training = True


def without_padding(logits: Tensor, spec: Spec) -> Tensor:
    """Logits (..., V) with the padding token at -inf, unless it is the end token too."""
    if spec.pad_id is None or spec.pad_id == spec.eos_id:
        return logits
    return logits.index_fill(-1, torch.tensor([spec.pad_id], device=logits.device), -torch.inf)


def _filler(spec: Spec) -> int:
    """What follows the end of a row."""
    if spec.eos_id is None:
        return 0
    return spec.eos_id if spec.pad_id is None else spec.pad_id
