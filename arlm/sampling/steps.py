"""Sampling step by step: score the next token, apply the logits processors, draw, advance.

    begin(...)   ->  SamplerState: rows with their prompts taken, each at its own position
    Steps(net, state)    an iterator over blocks of drawn tokens:

        row 0   p p p p | x x | x x | x .      p prompt, x drawn, . ended
        row 1   p       | x x | x .            block 0, 1, 2: two positions each
        row 2   p p     | x x | x x | x x

Between two blocks the process and the network are as they were, so several samplers can take turns, and one can
be abandoned. Rows may be replaced there: `steps.state = steps.state.assign(rows, begin(...))`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec, token_log_prob
from arlm.errors import UserError, require
from arlm.sampling.chain import (
    Memories,
    apply_all,
    new_memories,
    observe_all,
    refuse_masked,
    refuse_undefined,
)
from arlm.sampling.details import NOTHING, Block, Details
from arlm.sampling.finish import Finish, check_limits, finished
from arlm.sampling.inference_context import inference_context
from arlm.sampling.noise import Noise, Uniform, seed_tensor
from arlm.sampling.processors import History, LogitsProcessor, drawable
from arlm.states import SHARED, State, grows

SCORED_TOGETHER = 64  # positions whose drawn tokens are scored in one call


@dataclass(frozen=True)
class SamplerState(State):
    """Rows in the middle of being drawn."""

    network: State
    logits: Tensor  # (B, V) of each row's next token
    processors: tuple[LogitsProcessor, ...] = field(metadata=SHARED)
    memories: Memories
    tokens: Tensor = field(metadata=grows(1))  # (B, T) int64, the filler beyond `lengths`
    log_prob: Tensor = field(metadata=grows(1))  # (B, T) float64, 0 beyond `lengths`
    forced: Tensor = field(metadata=grows(1, fill=-1))  # (B, T) int64, -1 where free
    seeds: Tensor  # (B,) int64
    noise: Noise = field(metadata=SHARED)
    lengths: Tensor  # (B,) int64, tokens of each row
    prompt_lengths: Tensor  # (B,) int64
    limits: Tensor  # (B,) int64, most tokens of each row
    ended: Tensor  # (B,) bool
    rows: Tensor  # (B,) int64, row numbers
    stop_tokens: Tensor = field(metadata=grows(1, fill=-1))  # (B, K) int64
    reasons: Tensor  # (B,) int8, a `Finish`, or 0 where the tokens tell

    @torch.inference_mode()
    def __getitem__(self, rows: Tensor | slice) -> SamplerState:
        return super().__getitem__(rows)

    @torch.inference_mode()
    def assign(self, rows: Tensor, other: SamplerState) -> SamplerState:
        self._check_shared([other])
        return super().assign(rows, other)

    @torch.inference_mode()
    def concatenated(self, others: Sequence[SamplerState]) -> SamplerState:
        self._check_shared(others)
        return super().concatenated(others)

    def _check_shared(self, others: Sequence[SamplerState]) -> None:
        for name in ("processors", "noise"):
            if any(getattr(other, name) != getattr(self, name) for other in others):
                raise UserError(f"{name}: the rows have different ones; begin all with the same")

    def end(self, rows: Tensor) -> SamplerState:
        """The state with some rows ended, (B,) bool."""
        reasons = self.reasons.masked_fill(rows & ~self.ended, Finish.STOP)
        return replace(self, ended=self.ended | rows, reasons=reasons)


def begin(
    net: Autoregressor,
    forced: Tensor,
    seeds: Sequence[int] | Tensor,
    processors: Sequence[LogitsProcessor] = (),
    context: Tensor | None = None,
    limits: Tensor | None = None,
    rows: Tensor | None = None,
    noise: Noise = Uniform(),  # noqa: B008  (frozen)
    stop_tokens: Sequence[int] | Tensor = (),
    started: tuple[Tensor, State] | None = None,
    read: int = 0,
) -> SamplerState:
    """Start rows and take their prompts, the leading forced tokens of each row.

    Args:
        net: the network.
        forced: (B, T) int64, -1 where a token is to be drawn.
        seeds: (B,), one for each row.
        processors: applied to the logits in order.
        context: (B, S) int64, or None.
        limits: (B,) int64, most tokens of each row, from 1 to T, which is the default; equal for images.
        rows: (B,) int64, numbers for the rows, by default 0, 1, 2, ...
        noise: turns seeds, positions and logits into tokens.
        stop_tokens: end a row as its last token, like the end token; (K,) for all rows, or (B, K) with -1 for none.
        started: what `net.start` returned for such rows, if it was called already, or what `net.advance` returned with the
            logits of each row's next token; the state is consumed.
        read: how many tokens of every prompt the state of `started` has taken; they are not read again, and their
            log-probabilities are 0.

    Raises a UserError if a limit is out of range, or a prompt has fewer tokens than were read.
    """
    with inference_context(net):
        batch, length = forced.shape
        # They may be expanded, and later rows are written over them.
        forced, of_rows = forced.clone(), seed_tensor(seeds, forced.device).clone()
        logits, network = started or net.start(batch, length, context)
        most_tokens = torch.full((batch,), length, device=forced.device)
        if limits is not None:
            most_tokens = limits.clone()
            check_limits(most_tokens, batch, length, network.one_position)
        leading = (forced >= 0).long().cumprod(1).sum(1)
        lengths = leading.min().repeat(batch) if network.one_position else leading
        taken = lengths.clamp(max=length - 1)
        fits = 0 <= read <= int(taken.min())
        require(fits, "read", read, "choose 0 to the tokens of the shortest prompt")
        columns = torch.arange(length, device=forced.device)
        fill = filler(net.spec)
        tokens = forced.where(columns < lengths[:, None], fill)
        log_prob = torch.zeros(batch, length, dtype=torch.float64, device=forced.device)
        new, longest = taken - read, int(lengths.max())
        scores, most = logits[:, None], int(new.max())
        if most:
            even = bool((new == most).all())
            unread = tokens[:, read : read + most]
            chunk, network = net.advance(unread, network, None if even else new)
            scores = torch.cat([scores, chunk], dim=1)
            logits = scores[torch.arange(batch, device=forced.device), new]
        if longest > read:
            own = slice(read, longest)
            nats = token_log_prob(scores[:, : longest - read], tokens[:, own]).double()
            log_prob[:, own] = nats.where(columns[own] < lengths[:, None], 0.0)
        number = torch.arange(batch, device=forced.device) if rows is None else rows.clone()
        parts = (tokens, log_prob, forced, of_rows, noise, lengths, leading, most_tokens)
        memories = new_memories(processors, batch, forced.device)
        ended = lengths >= most_tokens
        stops = torch.as_tensor(stop_tokens, dtype=torch.long, device=forced.device)
        ending = ended, number, stops.expand(batch, -1).clone(), ended.to(torch.int8) * 0
        return SamplerState(
            *(network, logits.clone(), tuple(processors), memories, *parts, *ending),
            net=net.serial,
        )


class Steps(Iterator[Block]):
    """Draws tokens block by block, until all rows have ended.

    Args:
        net: is put into eval mode while it draws.
        state: from `begin`; `steps.state` holds the rows between two blocks and may be replaced there.
        block: positions in a block, at most; fewer are drawn where a row reaches its limit.
        details: what blocks hold beside tokens and log-probabilities.
    """

    def __init__(
        self, net: Autoregressor, state: SamplerState, block: int = 1, details: Details = NOTHING
    ) -> None:
        require(block >= 1, "block", block, "choose at least 1")
        details.check(net.spec.vocab_size)
        if state.net != net.serial:
            raise UserError("state: another network made it; begin the rows with this network")
        self.net, self.state, self.block, self.details = net, state, block, details

    def __next__(self) -> Block:
        with inference_context(self.net):
            if bool(self.state.ended.all()):
                raise StopIteration
            block = self._draw_block()
        return block.cloned()  # clones can be used in autograd

    def _draw_block(self) -> Block:
        s, end, fill = self.state, self.net.spec.eos_id, filler(self.net.spec)
        s.consume(self.net)
        first, ended, logits, live = s.lengths, s.ended, s.logits, ~s.ended
        # No live row reaches its limit before the last of these positions.
        left = int((s.limits - first)[live].min())
        count = min(self.block, left, max(1, 2**22 // logits.numel()))
        offsets = torch.arange(count, device=first.device)
        columns = (first[:, None] + offsets).clamp(max=s.tokens.shape[1] - 1)
        numbers, forced = s.noise.numbers(s.seeds, columns), s.forced.gather(1, columns)
        given = forced >= 0
        any_given, any_ended = given.any(0).tolist(), not bool(live.all())
        drawn, scores, shapes, counted = [], [], [], []
        may_end = end is not None or s.stop_tokens.shape[1] > 0
        network, memories, history, reasons = s.network, s.memories, None, s.reasons
        reads = bool(s.processors) or s.noise.reads_history  # each token before the next is drawn
        for i in range(count):
            shaped, outputs, over = without_padding(logits, self.net.spec), [], None
            if reads:
                history = History(s.tokens, columns[:, i], s.prompt_lengths, self.net.spec, s.seeds)
            if history and s.processors:
                outputs = apply_all(s.processors, shaped, history, memories)
                shaped = outputs[-1]
            token = s.noise.draw(shaped, numbers[:, i], history)
            if not outputs:  # without a distribution it is any token; see `refuse_undefined`
                token = token.clamp_(max=logits.shape[1] - 1)
            elif not bool((possible := drawable(shaped, token)).all()):
                rows = ~possible & live & ~given[:, i]
                refuse_masked(s.processors, [logits, *outputs], rows, first + i)
            if any_given[i]:
                token = torch.where(given[:, i], forced[:, i], token)
            if any_ended:
                token = token.masked_fill(ended, fill)
            if reads:
                column = columns[:, i : i + 1]
                if any_ended:
                    self._write(column, token[:, None], live[:, None])
                else:
                    s.tokens.scatter_(1, column, token[:, None])
                if any(memory is not None for memory in memories):
                    observed = live & (first + i >= s.prompt_lengths)
                    memories = observe_all(s.processors, token, outputs, memories, observed)
                    over = finished(s.processors, memories) if end is None else None
            drawn.append(token)
            scores.append(logits)
            if self.details:
                shapes.append(shaped)
            counted.append(live)
            last = i + 1 == count
            if last:
                ended = ended | (first + count >= s.limits)
            if end is not None:
                ended = ended | ((token == end) & live)
            if s.stop_tokens.shape[1]:
                ended = ended | ((token[:, None] == s.stop_tokens).any(1) & live)
            if over is not None:
                reasons = reasons.masked_fill(over & live, Finish.CONSTRAINT)
                ended = ended | (over & live)
            if may_end or over is not None or last:
                live = ~ended
                any_ended = bool(ended.any())
                if any_ended and not bool(live.any()):
                    break
            taken = live.long() if any_ended else None
            chunk, network = self.net.advance(token[:, None], network, taken)
            logits = chunk[:, 0]
        each, inside = torch.stack(drawn, dim=1), torch.stack(counted, dim=1)
        columns, lengths = columns[:, : len(drawn)], inside.sum(1)
        if not reads:
            self._write(columns, each, inside)
        nats = token_log_prob(torch.stack(scores, dim=1), each).double().where(inside, 0.0)
        refuse_undefined(nats, inside & ~given[:, : len(drawn)], first, s.rows)
        s.log_prob.scatter_add_(1, columns, nats)
        self.state = replace(
            s,
            network=network,
            logits=logits,
            memories=memories,
            lengths=first + lengths,
            ended=ended,
            reasons=reasons,
        )
        details = self.details.of(scores, shapes, each, inside)
        return Block(s.rows, first, each, lengths, nats, *details)

    def _write(self, columns: Tensor, tokens: Tensor, inside: Tensor) -> None:
        """Write tokens (B, n) to the columns (B, n) of the rows, where they are inside (B, n)."""
        kept = self.state.tokens.gather(1, columns)
        self.state.tokens.scatter_(1, columns, tokens.where(inside, kept))


def without_padding(logits: Tensor, spec: Spec) -> Tensor:
    """Logits (..., V) with the padding token at -inf, unless it is the end token too."""
    if spec.pad_id is None or spec.pad_id == spec.eos_id:
        return logits
    return logits.index_fill(-1, torch.tensor([spec.pad_id], device=logits.device), -torch.inf)


def filler(spec: Spec) -> int:
    """What follows the end of a row."""
    if spec.eos_id is None:
        return 0
    return spec.eos_id if spec.pad_id is None else spec.pad_id
