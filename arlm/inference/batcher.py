"""Continuous batching: requests enter and leave a running batch of rows, each at a position of its own.

    slot 0   a a a a a a|c c c c c c c|e ...      request c enters where a has ended
    slot 1   b b b b b b b b b b|d d d d ...
             step()  step()  step()               each returns what the requests have drawn

Every result equals that of the request alone: a row depends on its prompt, its seed and its limits, and not on the
rows beside it. Requests are served in the order in which they come, and each has a limit, so none waits for ever.
Memory is bounded by the number of slots, their length, and the number of requests that wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock

import torch
from torch import Tensor

from arlm.core import Autoregressor
from arlm.errors import UserError, require
from arlm.inference.prompt_reader import AHEAD, PromptReader
from arlm.inference.requests import CANCELLED, Request, Update, check_request, joined
from arlm.inference.stops import RowText
from arlm.sampling.details import NOTHING, Alternatives, Block, Details
from arlm.sampling.finish import Finish, cut, finish_reasons
from arlm.sampling.noise import Noise, Uniform
from arlm.sampling.processors import LogitsProcessor
from arlm.sampling.sliding import check_slides
from arlm.sampling.steps import Steps, filler
from arlm.states import concatenate


@dataclass
class _Row:
    """A request in a slot."""

    text: RowText | None
    length: int  # tokens of its prompt and its updates


@dataclass
class Batcher:
    """Draws the rows of many requests in up to `slots` slots.

    Args:
        net: a network of texts; in eval mode while it is used.
        slots: most rows at a time.
        length: most tokens of a row, prompt included; by default those of the network's rows. Where it is more
            than the network's window, the window slides.
        processors: applied to the logits of all rows, in order.
        decode: tokens (T,) -> str, for texts and stop strings; see `RowText`.
        noise: turns seeds, positions and logits into tokens.
        block: positions that are drawn in a step, at most: 1 shows each token at once, more cost less.
        details: what updates hold beside tokens and log-probabilities.
        waiting: most requests that wait for a slot.
    """

    net: Autoregressor
    slots: int = 16
    length: int | None = None
    processors: Sequence[LogitsProcessor] = ()
    decode: Callable[[Tensor], str] | None = None
    noise: Noise = Uniform()  # noqa: RUF009  (frozen)
    block: int = 8
    details: Details = NOTHING
    waiting: int = 10_000
    _queue: deque[tuple[int, Request]] = field(default_factory=deque, init=False)
    _cancelled: set[int] = field(default_factory=set, init=False)
    _rows: dict[int, _Row] = field(default_factory=dict, init=False)
    _steps: Steps | None = field(default=None, init=False)
    _reader: PromptReader = field(init=False, repr=False)
    _next: int = field(default=0, init=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        spec = self.net.spec
        require(self.slots >= 1, "slots", self.slots, "choose at least 1")
        require(self.block >= 1, "block", self.block, "choose at least 1")
        self.details.check(spec.vocab_size)
        self.room = spec.length if self.length is None else self.length
        if len(spec.shape) > 1 or (spec.context is not None and spec.context.kind != "label"):
            raise UserError(
                f"net: {type(self.net).__name__} draws images or translations, whose rows do not take turns in "
                "a batch; use `generate` or `arlm translate`"
            )
        check_slides(self.net, self.room)
        self._reader = PromptReader(
            self.net, self.room, self.processors, self.noise, self.block, self.details
        )

    def submit(self, request: Request) -> int:
        """Let a request wait for a slot; returns its number. May be called from another thread than `step`.

        Raises:
            UserError: the request does not fit, or too many wait.
        """
        check_request(request, self.net, self.room, self.processors, self.decode is not None)
        with self._lock:
            waiting = len(self._queue) + len(self._reader.ready)
            require(waiting < self.waiting, "waiting", waiting, "submit it later")
            number, self._next = self._next, self._next + 1
            self._queue.append((number, request))
        return number

    def cancel(self, number: int) -> None:
        """End a request in the next step; one that has ended, or is not known, is left alone."""
        self._cancelled.add(number)

    @property
    def open(self) -> int:
        """Requests that wait or run."""
        return len(self._queue) + len(self._reader.ready) + len(self._rows)

    def step(self) -> list[Update]:
        """Let requests enter free slots, and draw up to `block` tokens of each row.

        If it raises, the requests in the slots are lost, and those that wait can be served.
        """
        try:
            updates = self._drop_cancelled()
            self._admit()
            if self._steps is not None and self._rows:
                updates += self._updates(self._steps, next(self._steps))
        except BaseException:
            self._steps, self._rows = None, {}
            with self._lock:
                self._queue.extendleft(reversed(self._reader.give_back()))
            raise
        return updates

    def __iter__(self) -> Iterator[Update]:
        """Updates until no request is left."""
        while self.open:
            yield from self.step()

    def run(self, requests: Sequence[Request]) -> list[Update]:
        """The whole result of each request, in one update; for a batcher without other requests."""
        require(not self.open, "requests", self.open, "start another batcher while some are open")
        numbers = [self.submit(request) for request in requests]
        found: dict[int, list[Update]] = {number: [] for number in numbers}
        for update in self:
            found[update.request].append(update)
        return [joined(found[number]) for number in numbers]

    def waits(self, number: int) -> bool:
        """Whether a request waits for a slot."""
        with self._lock:
            queued = any(number == other for other, _ in self._queue)
            return queued or number in self._reader.ready

    def _drop_cancelled(self) -> list[Update]:
        """End requests that were cancelled since the last step."""
        numbers, self._cancelled = self._cancelled, set()
        with self._lock:
            waiting = [number for number, _ in self._queue if number in numbers]
            if waiting:
                self._queue = deque(one for one in self._queue if one[0] not in numbers)
        waiting += self._reader.drop(numbers)
        running = [number for number in numbers if self._rows.pop(number, None)]
        if running:
            assert self._steps is not None
            state = self._steps.state
            self._steps.state = state.end(torch.isin(state.rows, state.rows.new_tensor(running)))
        nothing = torch.empty(0, dtype=torch.long)
        return [Update(n, nothing, nothing.double(), "", CANCELLED) for n in waiting + running]

    def _admit(self) -> None:
        """Let requests enter free slots in the order in which they came; their prompts are read ahead."""
        reader = self._reader
        if not self._rows:
            reader.forget_start()
        free = self.slots - len(self._rows)
        if len(reader.ready) < free:
            ahead = max(free, min(AHEAD, self.slots // 2)) - len(reader.ready)
            with self._lock:
                new = [self._queue.popleft() for _ in range(min(ahead, len(self._queue)))]
            try:
                reader.read(new)
            except BaseException:
                with self._lock:  # those that only wait; the others would be in slots
                    self._queue.extendleft(reversed(new[free - len(reader.ready) :]))
                raise
        taken, entering = reader.take(free)
        if entering is None:
            self._shrink()
        else:
            self._enter(taken, entering)

    def _enter(self, taken: dict[int, Request], entering: Steps) -> None:
        """Let the rows of requests take the place of rows that have ended, then free slots."""
        for number, request in taken.items():
            text = None
            if self.decode is not None:
                shown = self.decode(request.prompt)
                text = RowText(self.decode, request.prompt, request.stop, shown)
            self._rows[number] = _Row(text, len(request.prompt))
        if self._steps is None:
            self._steps = entering
            return
        state, others = self._steps.state, entering.state
        free = state.ended.nonzero().flatten()[: len(taken)]
        count = len(free)
        if count:
            state = state.assign(free, others if count == len(taken) else others[:count])
        if count < len(taken):
            state = concatenate([state, others[count:] if count else others])
        self._steps.state = state

    def _shrink(self) -> None:
        """Drop rows that have ended when they are at least half of the batch, as no request takes their place."""
        if self._steps is None or 2 * len(self._rows) > len(self._steps.state.rows):
            return
        if not self._rows:
            self._steps = None
            return
        self._steps.state = self._steps.state[(~self._steps.state.ended).nonzero().flatten()]

    def _updates(self, steps: Steps, block: Block) -> list[Update]:
        """What the rows have drawn in a block; rows that have ended leave."""
        state, found = steps.state, []
        reasons, lengths = finish_reasons(state, self.net.spec), block.lengths.tolist()
        stopped = torch.full_like(state.lengths, -1)
        for slot, number in enumerate(block.rows.tolist()):
            row = self._rows.get(number)
            if row is None:
                continue
            count, reason, text = lengths[slot], reasons[slot], ""
            if row.text is not None:
                tokens = state.tokens[slot, : row.length + count].cpu()
                text, complete = row.text.take(tokens, reason is not None)
                if complete is not None:
                    count, reason = complete - row.length, Finish.STOP.label
                    stopped[slot] = complete
            row.length += count
            after, top = block.processed_log_prob, block.top
            found.append(
                Update(
                    number,
                    block.tokens[slot, :count].cpu(),
                    block.log_prob[slot, :count].cpu(),
                    text,
                    reason,
                    None if after is None else after[slot, :count].cpu(),
                    None if top is None else Alternatives(*(x[slot, :count].cpu() for x in top)),
                )
            )
            if reason:
                del self._rows[number]
        if bool((stopped >= 0).any()):
            steps.state = cut(state, stopped, Finish.STOP, filler(self.net.spec))
        return found
