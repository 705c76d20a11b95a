"""Prompts of requests that wait for a slot, read ahead, several in a pass of the network.

    requests   a(90) b(3) c(88) d(7)      in the order in which they came, with the lengths of their prompts
    passes     [b d] [c a]                similar lengths together: each pass has its cost, and so has padding
    taken      a, then b, then c and d    in the order in which they came

A pass that reads one prompt costs nearly as much as one that reads two, so prompts are read before their rows
have a slot. The rows that are ready are as many as `AHEAD`, or as there are free slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of
from arlm.inference.requests import STOP_TOKENS, Request
from arlm.inference.scorer import ScoresChunks
from arlm.sampling.details import NOTHING, Details
from arlm.sampling.generate import class_count
from arlm.sampling.inference_context import inference_context
from arlm.sampling.noise import Noise, Uniform, seed_tensor
from arlm.sampling.processors import LogitsProcessor
from arlm.sampling.sliding import begin_steps, first_window
from arlm.sampling.steps import Steps
from arlm.states import State, concatenate

AHEAD = 8  # most prompts that are read before their rows have a slot
PASS = 32  # tokens whose reading costs as much as a pass costs beside them
PROMPT_LOGITS = 2**25  # largest number of logits of prompts that are read together


def passes(lengths: Sequence[int], most: int, each: int) -> list[list[int]]:
    """Divide prompts into passes of the smallest cost: the tokens that are read, padding included, and `each`.

    Args:
        lengths: tokens of each prompt.
        most: tokens in a pass, unless one prompt has more.
        each: what a pass costs beside its tokens, in tokens.

    Returns: the indices of the prompts in each pass; lengths do not fall from pass to pass.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    costs, firsts = [0], [0]  # of the first n prompts; where their last pass begins
    for end in range(1, len(order) + 1):
        longest = max(1, lengths[order[end - 1]])
        costs.append(costs[-1] + each + longest)
        firsts.append(end - 1)
        for first in range(end - 1):
            tokens = (end - first) * longest
            if tokens <= most and costs[first] + each + tokens < costs[end]:
                costs[end], firsts[end] = costs[first] + each + tokens, first
    found, end = [], len(order)
    while end:
        found.append(order[firsts[end] : end])
        end = firsts[end]
    return found[::-1]


@dataclass
class _Pass:
    """Rows whose prompts were read together."""

    steps: Steps
    numbers: tuple[int, ...]  # of its requests, in the order of the rows


@dataclass
class PromptReader:
    """Rows that have read their prompts and wait for a slot. The arguments are those of `Batcher`; `room` is its length.

    `ready` has the requests by their numbers, in the order in which they were given.
    """

    net: Autoregressor
    room: int
    processors: Sequence[LogitsProcessor] = ()
    noise: Noise = Uniform()  # noqa: RUF009  (frozen)
    block: int = 8
    details: Details = NOTHING
    ready: dict[int, Request] = field(default_factory=dict, init=False)
    _passes: list[_Pass] = field(default_factory=list, init=False, repr=False)
    _start: tuple[list, Tensor, State] | None = field(default=None, init=False, repr=False)

    def read(self, requests: Sequence[tuple[int, Request]]) -> None:
        """Read the prompts of numbered requests, in a few passes."""
        most = PROMPT_LOGITS // self.net.spec.vocab_size
        # A recurrent network reads token after token, so a pass costs what its longest prompt costs.
        each = most if isinstance(self.net, ScoresChunks) else PASS
        for rows in passes([len(request.prompt) for _, request in requests], most, each):
            own = [requests[row] for row in sorted(rows)]
            numbers = tuple(number for number, _ in own)
            self._passes.append(_Pass(self._begin(own), numbers))
        self.ready.update(requests)

    def take(self, count: int) -> tuple[dict[int, Request], Steps | None]:
        """Up to `count` requests, the first ones, and their rows in this order; None if no request is ready."""
        taken = dict(islice(self.ready.items(), count))
        found = []
        for one in self._passes:
            rows = [row for row, number in enumerate(one.numbers) if number in taken]
            if rows:
                state = one.steps.state
                part = state if len(rows) == len(one.numbers) else state[torch.tensor(rows)]
                found.append((one.steps, part))
        for number in taken:
            del self.ready[number]
        self._forget_passes()
        if not found:
            return taken, None
        steps = found[0][0]
        own = type(steps)(self.net, found[0][1], self.block, self.details)
        if len(found) > 1:
            joined = concatenate([part for _, part in found])
            own.state = joined[joined.rows.argsort()]  # numbers rise
        return taken, own

    def drop(self, numbers: set[int]) -> list[int]:
        """Forget some requests; returns those that were ready."""
        found = [number for number in self.ready if number in numbers]
        for number in found:
            del self.ready[number]
        self._forget_passes()
        return found

    def give_back(self) -> list[tuple[int, Request]]:
        """Forget all rows; returns their requests, to be read again."""
        requests = list(self.ready.items())
        self.ready.clear()
        self._forget_passes()
        return requests

    def forget_start(self) -> None:
        """Compute the start of rows anew: the network may have changed in a way that `_started` does not see."""
        self._start = None

    def _forget_passes(self) -> None:
        """Free the rows of passes of which no request is left."""
        self._passes = [
            one for one in self._passes if not self.ready.keys().isdisjoint(one.numbers)
        ]

    def _begin(self, new: Sequence[tuple[int, Request]]) -> Steps:
        """Rows of requests, their prompts taken."""
        device, requests = device_of(self.net), [request for _, request in new]
        forced = torch.full((len(new), self.room), -1, device=device)
        stops = torch.full((len(new), STOP_TOKENS), -1)
        for row, request in enumerate(requests):
            forced[row, : len(request.prompt)] = request.prompt.to(device)
            stops[row, : len(request.stop_tokens)] = torch.tensor(request.stop_tokens).long()
        limits = [len(request.prompt) + request.new_tokens for request in requests]
        context = None
        if class_count(self.net.spec):
            context = torch.tensor([[request.label or 0] for request in requests], device=device)
        steps = begin_steps(
            *(self.net, forced, seed_tensor([request.seed for request in requests], device)),
            tuple(self.processors),
            context,
            torch.tensor(limits, device=device),
            self.block,
            noise=self.noise,
            stop_tokens=stops.to(device),
            details=self.details,
            started=self._started(len(new)) if context is None else None,
        )
        numbers = torch.tensor([number for number, _ in new], device=device)
        steps.state = replace(steps.state, rows=numbers)
        return steps

    def _started(self, rows: int) -> tuple[Tensor, State]:
        """What `net.start` returns for some rows, computed for one: without a context, all start alike."""
        weights = list(chain(self.net.parameters(), self.net.buffers()))
        known = [(w.data_ptr(), w.is_inference() or w._version) for w in weights]
        if self._start is None or self._start[0] != known:
            with inference_context(self.net):
                first = self.net.start(1, first_window(self.net, self.room))
            self._start = known, *first
        copies = torch.zeros(rows, dtype=torch.long, device=device_of(self.net))
        with inference_context(self.net):
            return self._start[1][copies], self._start[2][copies]
