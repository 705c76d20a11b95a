"""Speculative decoding: a draft proposes tokens, and one pass of the network checks several of them.

With the noise fixed, the token at a position is a function of the tokens before it. The network draws it itself, and
keeps a proposal only where it is the token that it draws:

    row      a b c | d        drawn from the logits that are known
    draft            e f g    proposed
    pass     d e f g          one `advance`: logits after d, e, f and g
    drawn            e f h    with the noise of their positions: e and f are kept, g is not h
    rewind           . .      the state has read a b c d e f; its logits give h at the start of the next round

So the result is token for token that of `generate` with the same noise, for any draft; a bad draft costs time only.
How many proposals are equal depends on the noise: `Gumbel` couples two networks far better than `Uniform`.
In float32, the logits of a pass over several tokens differ from those of single tokens in the last digits, and about
one draw in a million may differ; in float64 none was seen to.

References:
    | Fast Inference from Transformers via Speculative Decoding (Leviathan et al., 2023), by rejection
    | https://arxiv.org/abs/2211.17192
    | Coupling without Communication and Drafter-Invariant Speculative Decoding (Daliri et al., 2024), by shared noise
    | https://arxiv.org/abs/2408.07978
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from arlm.core import Autoregressor, token_log_prob
from arlm.errors import UserError, require
from arlm.sampling.chain import refuse_undefined
from arlm.sampling.details import Block
from arlm.sampling.drafts import Draft, Rows
from arlm.sampling.finish import Finish, finish_reasons, finished
from arlm.sampling.generate import prepare
from arlm.sampling.noise import Gumbel, Noise
from arlm.sampling.processors import LogitsProcessor, drawable
from arlm.sampling.sliding import SlidingSteps, begin_steps
from arlm.sampling.steps import Steps
from arlm.states import State


@dataclass
class Speculation:
    """A draft, how far it looks ahead, and counts of what came of it.

    Args:
        draft: proposes tokens.
        tokens: proposals in a pass, for each row.
    """

    draft: Draft
    tokens: int = 4
    passes: int = (
        0  # of the network, those that repeat a part of one included, without the prompt's
    )
    compared: int = 0  # proposals up to the first unequal one of each row
    accepted: int = 0  # proposals that were equal

    def __post_init__(self) -> None:
        require(self.tokens >= 1, "draft-tokens", self.tokens, "choose at least 1")

    @property
    def acceptance(self) -> float:
        """The share of equal proposals among those that were compared; nan without any."""
        return self.accepted / self.compared if self.compared else float("nan")


class Speculative(NamedTuple):
    """As `Generated`, with the number of passes of the network and the fate of the proposals."""

    tokens: Tensor  # (B, T) int64
    log_prob: Tensor  # (B, T) nats; 0 after the end of a row
    passes: int
    compared: int
    accepted: int
    lengths: Tensor  # (B,) int64
    finish: tuple[str | None, ...]  # why each row ended; see `finish_reasons`


class _Speculating(Steps):
    """Draws blocks by rounds of proposals; a block has different lengths in different rows."""

    def __init__(self, net: Autoregressor, state: Any, speculation: Speculation) -> None:
        speculation.draft.check(net)
        super().__init__(net, state)
        self.speculation = speculation
        self._rewinds: bool | None = None  # not yet known

    def _draw_block(self) -> Block:
        s, ours = self.state, self.speculation
        s.consume(self.net)
        live, first = ~s.ended, s.lengths
        rows = Rows(
            *(s.tokens, first, live, s.limits, s.prompt_lengths, s.forced, s.seeds),
            *(s.noise, s.processors, s.memories, self.net.spec, s.stop_tokens),
        )
        # A round draws a token, then at each proposal; columns beyond a row's end repeat its last one.
        rows.first, rows.numbers = first, s.noise.numbers(s.seeds, rows.columns(ours.tokens + 2))
        logits, network, scores = s.logits, s.network, s.logits[:, None]
        token, outputs = rows.drawn(logits)
        rows.refuse_undrawable(logits, token, outputs)
        rows.append(token, outputs, rows.live)
        if bool(rows.live.any()):
            proposed, counts = self._proposals(rows)
            # A row that reaches its limit with its last proposal does not read that one.
            taken = (counts + 1).minimum(rows.limits - rows.lengths).where(rows.live, 0)
            before = self._copied(network)
            chunk = torch.cat([token[:, None], proposed.clamp(min=0)], 1)[:, : int(taken.max())]
            even = bool((taken == chunk.shape[1]).all())
            after, network = self.net.advance(chunk, network, None if even else taken)
            ours.passes += 1
            read, going = rows.lengths, rows.live
            self._verify(rows, after, proposed, counts)
            accepted = rows.lengths - read
            network = self._settled(network, before, chunk, taken, (accepted + 1).minimum(taken))
            index = accepted.clamp(max=after.shape[1] - 1)
            new = after[torch.arange(len(after), device=index.device), index]
            logits = torch.where(going[:, None], new, logits)
            scores = torch.cat([scores, after], dim=1)
        lengths = rows.lengths - first
        offsets = torch.arange(int(lengths.max()), device=first.device)
        columns = (first[:, None] + offsets).clamp(max=s.tokens.shape[1] - 1)
        inside = offsets < lengths[:, None]
        each = s.tokens.gather(1, columns)
        nats = token_log_prob(scores[:, : len(offsets)], each).double().where(inside, 0.0)
        refuse_undefined(nats, inside & (s.forced.gather(1, columns) < 0), first, s.rows)
        s.log_prob.scatter_add_(1, columns, nats)
        over = finished(s.processors, rows.memories) if self.net.spec.eos_id is None else None
        reasons = s.reasons
        if over is not None:
            reasons = reasons.masked_fill(over & live & ~rows.live, Finish.CONSTRAINT)
        self.state = replace(
            s,
            network=network,
            logits=logits,
            memories=rows.memories,
            lengths=rows.lengths,
            ended=s.ended | ~rows.live,
            reasons=reasons,
        )
        return Block(s.rows, first, each, lengths, nats)

    def _proposals(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Proposals (B, n), and how many of them each row has, (B,)."""
        room = (rows.limits - rows.lengths).where(rows.live, 0)
        count = min(self.speculation.tokens, int(room.max()))
        proposed = self.speculation.draft.propose(rows.copy(), count)[:, :count]
        counts = (proposed >= 0).long().cumprod(1).sum(1).minimum(room)
        return proposed[:, : int(counts.max())], counts

    def _verify(self, rows: Rows, logits: Tensor, proposed: Tensor, counts: Tensor) -> None:
        """Take the proposals into the rows up to the first that is not the row's own draw.

        Args:
            rows: continued in place; a row that has stopped keeps its memories.
            logits: (B, S, V), of the positions of the proposals and perhaps one more.
            proposed, counts: as returned by `_proposals`.
        """
        accepting, ours = rows.live, self.speculation
        together = rows.drawn_together(logits[:, : proposed.shape[1]])
        for i, proposal in enumerate(proposed.unbind(1)):
            accepting = accepting & rows.live & (i < counts)
            if not bool(accepting.any()):
                break
            free = rows.forced.gather(1, rows.columns(1)).squeeze(1) < 0
            token, outputs = rows.drawn(logits[:, i]) if together is None else (together[:, i], [])
            ours.compared += int((accepting & free).sum())
            accepting = accepting & (token == proposal)
            if outputs:  # a row without a token to draw is refused when its next round begins
                accepting = accepting & drawable(outputs[-1], token)
            ours.accepted += int((accepting & free).sum())
            rows.append(token, outputs, accepting)

    def _copied(self, network: State) -> State | None:
        """A copy of a state that cannot be rewound; None if it can."""
        if self._rewinds is None:
            try:
                # Of another object with the same tensors, so that this one is not consumed.
                replace(network).rewind(torch.zeros_like(self.state.lengths))
                self._rewinds = True
            except UserError:
                self._rewinds = False
        return None if self._rewinds else network[:]

    def _settled(
        self, network: State, before: State | None, chunk: Tensor, taken: Tensor, right: Tensor
    ) -> State:
        """The state with the first `right` (B,) of the `taken` (B,) tokens of a chunk (B, S) that it has read."""
        over = taken - right
        if not bool(over.any()):
            return network
        if before is None:
            return network.rewind(over)
        self.speculation.passes += 1
        return self.net.advance(chunk[:, : int(right.max())], before, right)[1]


class SpeculativeSteps(_Speculating):
    """`Steps` with a draft."""


class SlidingSpeculativeSteps(_Speculating, SlidingSteps):
    """`SlidingSteps` with a draft."""


def speculate(steps: Steps, speculation: Speculation) -> Steps:
    """The rows of `steps`, to be drawn with a draft: the same tokens, in blocks of one to `tokens` + 1.

    Args:
        steps: from `begin_steps`, or any; not used any more.
        speculation: counts what happens; it may be shared by several calls, one after the other.

    Raises a UserError if the draft has other tokens, or the rows are images, which are at one position.
    """
    if steps.details:
        raise UserError("draft: it draws several tokens at once, without details; omit one of them")
    if steps.state.network.one_position and len(steps.state.lengths) > 1:
        raise UserError(
            "draft: the images of a batch are at the same pixel, so none can be ahead of the others; "
            "draw one image at a time, or omit the draft"
        )
    kind = SlidingSpeculativeSteps if isinstance(steps, SlidingSteps) else SpeculativeSteps
    return kind(steps.net, steps.state, speculation)


def speculative(
    net: Autoregressor,
    seeds: Sequence[int],
    length: int | None = None,
    *,
    draft: Draft,
    draft_tokens: int = 4,
    processors: Sequence[LogitsProcessor] = (),
    forced: Tensor | None = None,
    context: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    noise: Noise = Gumbel(),  # noqa: B008  (frozen)
    stop_tokens: Sequence[int] = (),
    progress: Callable[[int], object] | None = None,
) -> Speculative:
    """Draw the rows that `generate` draws with the same noise, in fewer passes of the network.

    Args:
        net, seeds, length, processors, forced, context, lengths, stop_tokens, progress: as for `generate`.
        draft: proposes tokens.
        draft_tokens: proposals in a pass, for each row.
        noise: as for `generate`, but by default the one with which similar networks draw equal tokens.
    """
    speculation = Speculation(draft, draft_tokens)
    free, of_rows = prepare(net, seeds, length, forced)
    limits = None if lengths is None else torch.tensor(lengths, device=free.device)
    begun = begin_steps(
        *(net, free, of_rows, processors, context, limits), noise=noise, stop_tokens=stop_tokens
    )
    steps = speculate(begun, speculation)
    report = progress or (lambda positions: None)
    done = int(steps.state.lengths.max())
    report(done)
    for _ in steps:
        before, done = done, int(steps.state.lengths.max())
        report(done - before)
    counts = (speculation.passes, speculation.compared, speculation.accepted)
    state = steps.state
    reasons = tuple(finish_reasons(state, net.spec))
    tokens, log_prob, ends = (x.clone() for x in (state.tokens, state.log_prob, state.lengths))
    return Speculative(tokens, log_prob, *counts, ends, reasons)
