"""The laws of states, in float64: every operation on rows gives what each row gives alone.

The reference is `forward`: after n tokens, a row's next logits are `forward(tokens)[:, n]`. Each law is applied to
a network's own decoding and to the inherited one, which recomputes the prefix.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from laws import SPECS, contexts, rows
from torch import Tensor

from arlm.core import Autoregressor
from arlm.errors import UserError
from arlm.states import State, concatenate

IGNORED = -7  # no token at all


class Decoder(NamedTuple):
    """A network with six rows, their logits by `forward`, and one way to decode: its own or the inherited one."""

    net: Autoregressor
    other: Autoregressor  # with equal weights
    kind: type[Autoregressor]
    tokens: Tensor
    context: Tensor | None
    expected: Tensor

    def start(self, chosen: list[int], length: int | None = None) -> State:
        """The state of some rows before their first token."""
        context = None if self.context is None else self.context[chosen]
        length = self.net.spec.length if length is None else length
        return self.kind.start(self.net, len(chosen), length, context)[1]

    def at(self, chosen: list[int], count: int, length: int | None = None) -> State:
        """The state of some rows after `count` tokens."""
        state = self.start(chosen, length)
        if not count:
            return state
        return self.advance(state, self.tokens[chosen, :count])[1]

    def advance(self, state: State, tokens: Tensor, lengths: Any = None) -> tuple[Tensor, Any]:
        lengths = None if lengths is None else torch.tensor(lengths)
        return self.kind.advance(self.net, tokens, state, lengths)

    def check(self, state: Any, chosen: list[int], counts: list[int], what: str) -> None:
        """Advance by one token from rows at `counts`, and compare the logits."""
        at = torch.tensor(counts)
        logits, _ = self.advance(state, self.tokens[chosen, at][:, None])
        gap = (logits[:, 0] - self.expected[chosen, at + 1]).abs().max()
        assert gap < 1e-10, f"{what}: logits are off by {gap:.1e}"


def for_each_decoder(law: Callable[[Decoder], None]) -> Callable[[Callable], None]:
    """Apply a law to a network's own decoding, then to the inherited one."""

    @functools.wraps(law)
    @torch.no_grad()
    def run(build: Callable) -> None:
        net, other = build(SPECS), build(SPECS)
        tokens, context = rows(net), contexts(net)
        for kind in (type(net), Autoregressor):
            law(Decoder(net, other, kind, tokens, context, net(tokens, context)))

    return run


def refused(action: Callable, what: str) -> None:
    """Raise an AssertionError unless the action raises a UserError."""
    try:
        action()
    except UserError:
        return
    raise AssertionError(f"{what} is not refused")


def parts_of(state: State) -> list[State]:
    """The states in a state of states, or the state itself."""
    inner = (state.state,) if hasattr(state, "state") else getattr(state, "states", ())
    return [part for each in inner for part in parts_of(each)] or [state]


def is_image(state: State) -> bool:
    """Whether all rows of the state are at one position."""
    return state.one_position


def has_positions(state: State, of: Callable = all) -> bool:
    """Whether all (or any) of the networks know the position of a row, so that it can go back and has a room."""
    return of(hasattr(part, "position") for part in parts_of(state))


@for_each_decoder
def law_select(d: Decoder) -> None:
    """Selected rows continue as alone; copies and slices of one state do not touch each other."""
    state, half = d.at([0, 1, 2, 3, 4, 5], 2), [0, 1, 2]
    parts = {
        "reordered rows": (state[torch.tensor([3, 0, 0, 5])], [3, 0, 0, 5]),
        "a repeated row": (state[torch.tensor([2, 2])], [2, 2]),
        "the first slice": (state[:3], half),
        "the second slice": (state[3:], [3, 4, 5]),
        "a mapped state": (state.map(torch.clone), [0, 1, 2, 3, 4, 5]),
    }
    for what, (part, chosen) in parts.items():
        d.check(part, chosen, [2] * len(chosen), what)
    # Branches that continue differently, the first one again after the second.
    _, branch = d.advance(state[:], d.tokens[:, 2:3])
    _, slice_ = d.advance(state[1:5], d.tokens[1:5, 2:3])
    for count, part in ((6, state[:]), (4, state[:4])):
        d.advance(part, (d.tokens[:count, 2:3] + 1) % d.net.spec.vocab_size)
    d.check(branch, [0, 1, 2, 3, 4, 5], [3] * 6, "a copy that advanced before another")
    d.check(slice_, [1, 2, 3, 4], [3] * 4, "a slice that advanced before another")
    d.check(state, [0, 1, 2, 3, 4, 5], [2] * 6, "the state itself, after its copies advanced")


@for_each_decoder
def law_concatenate(d: Decoder) -> None:
    """Joined states continue as alone, from different positions and with different rooms and sources."""
    length = d.net.spec.length
    first, second = d.at([0, 1], 3), d.at([4, 5, 3], 3, length - 1)
    d.check(concatenate([first, second]), [0, 1, 4, 5, 3], [3] * 5, "rows at one position")
    first, second = d.at([0, 1], 1), d.at([4, 3], 3, length - 1)
    if is_image(first):
        refused(lambda a=first, b=second: concatenate([a, b]), "joining different pixels")
        return
    joined = concatenate([first, second, d.at([2], 0)])
    chosen, counts = [0, 1, 4, 3, 2], [1, 1, 3, 3, 0]
    d.check(joined[:], chosen, counts, "rows at different positions")
    order = [4, 2, 0]
    mixed = joined[torch.tensor(order)]
    d.check(mixed, [chosen[i] for i in order], [counts[i] for i in order], "joined, then selected")


@for_each_decoder
def law_assign(d: Decoder) -> None:
    """Rows are written over others in place; all rows continue as alone; what exceeds the room is refused."""
    length, count = d.net.spec.length, 2
    for copied in (False, True):
        state, new = d.at([0, 1, 2], count), d.at([5, 4], count, length - 1)
        state = state[torch.tensor([0, 1, 2])] if copied else state
        state = state.assign(torch.tensor([2, 0]), new)
        d.check(state, [4, 1, 5], [count] * 3, "assigned rows")
    first = d.at([0, 1, 2], 1)
    if is_image(first):
        refused(lambda a=first: a.assign(torch.tensor([0]), d.at([1], 2)), "another pixel")
        return
    context = None if d.context is None else d.context.clone()
    state = first.assign(torch.tensor([1]), d.at([3], 3)).assign(torch.tensor([2]), d.at([4], 0))
    d.check(state, [0, 3, 4], [1, 3, 0], "assigned rows at different positions")
    state = d.at([0, 1, 2], 2)
    mapped = state.map(torch.clone).assign(torch.tensor([True, False, False]), d.at([5], 2))
    d.check(mapped, [5, 1, 2], [2] * 3, "assigned to a mapped state")
    if state.leaves():
        refused(lambda a=state: a.assign(torch.tensor([0, 1]), d.at([5], 2)), "one row for two")
    d.check(state, [0, 1, 2], [2] * 3, "a state whose rows were assigned in a mapped one")
    assert context is None or torch.equal(context, d.context), (
        "`assign` changed the caller's context"
    )
    short = d.at([0], 1, 2)
    longer = d.at([1], 3)
    if has_positions(short, any):
        refused(lambda a=short, b=longer: a.assign(torch.tensor([0]), b), "a row beyond the room")
        short[:]  # a refusal does not consume


@for_each_decoder
def law_rewind(d: Decoder) -> None:
    """Going back gives the earlier state, or is refused; so are more tokens than a row holds."""
    state, everything = d.at([0, 1, 2, 3, 4, 5], 3), [0, 1, 2, 3, 4, 5]
    counts = torch.tensor([0, 1, 2, 3, 1, 0])
    if not has_positions(state) or is_image(state):
        refused(lambda a=state: a.rewind(counts), "going back")
        d.check(state, everything, [3] * 6, "after a refusal")
        return
    wrong = (torch.full((6,), 4), torch.full((6,), -1), torch.ones(5).long())
    for number in wrong:
        refused(lambda a=state, n=number: a.rewind(n), f"rewinding by {number.tolist()}")
    # Other tokens are taken and given back, so that what was written for them must not be seen.
    other = (d.tokens[:, 3:4] + 1) % d.net.spec.vocab_size
    _, state = d.advance(state, other)
    state = state.rewind(counts + 1)
    d.check(state, everything, (3 - counts).tolist(), "rewound rows")


@for_each_decoder
def law_consumed(d: Decoder) -> None:
    """A state that was advanced, assigned to or rewound raises; so does another network's."""
    state = d.at([0, 1], 1)
    _, after = d.advance(state, d.tokens[:2, 1:2])
    actions: dict[str, Callable] = {
        "advancing": lambda a=state: d.advance(a, d.tokens[:2, 1:2]),
        "advancing with lengths": lambda a=state: d.advance(a, d.tokens[:2, 1:2], [1, 1]),
        "copying": lambda a=state: a[:],
        "selecting": lambda a=state: a[torch.tensor([0])],
        "mapping": lambda a=state: a.map(torch.clone),
        "assigning to": lambda a=state, b=after: a.assign(torch.tensor([0]), b[:1]),
        "assigning": lambda a=state, b=after: b.assign(torch.tensor([0]), a),
        "joining": lambda a=state, b=after: concatenate([b, a]),
    }
    for what, action in actions.items():
        refused(action, f"{what} a consumed state")
    assigned = after.assign(torch.tensor([0]), after[1:])
    refused(lambda a=after: d.advance(a, d.tokens[:2, 2:3]), "advancing after `assign`")
    theirs = d.kind.start(
        d.other, 2, d.net.spec.length, None if d.context is None else d.context[:2]
    )[1]
    refused(lambda a=assigned, b=theirs: concatenate([a, b]), "joining two networks")
    twin = copy.deepcopy(d.net)
    refused(lambda: d.kind.advance(twin, d.tokens[:2, :1], assigned), "a state of the original")
    refused(lambda a=assigned, b=theirs: a.assign(torch.tensor([0]), b[:1]), "mixing networks")
    refused(lambda b=theirs: d.advance(b, d.tokens[:2, :1]), "a state of another network")


@for_each_decoder
def law_ragged(d: Decoder) -> None:
    """Each row takes as many tokens as its length says; the others may be any integers."""
    state, everything = d.at([0, 1, 2, 3, 4, 5], 1), [0, 1, 2, 3, 4, 5]
    size = 3
    for wrong in ([0, 1, 2, 3, 4, 1], [0, -1, 2, 2, 1, 1], [1, 2]):
        refused(
            lambda a=state, n=wrong: d.advance(a[:], d.tokens[:, 1 : 1 + size], n),
            f"lengths {wrong}",
        )
    lengths = [0, 1, 2, 3, 1, 2]
    inside = torch.arange(size) < torch.tensor(lengths)[:, None]
    chunk = d.tokens[:, 1 : 1 + size].masked_fill(~inside, IGNORED)
    if is_image(state):
        refused(lambda a=state, x=chunk: d.advance(a[:], x, lengths), "different lengths")
        state = d.advance(state, d.tokens[:, 1 : 1 + size].clone(), [0] * 6)[1]
        chunk[:, :2], chunk[:, 2:] = d.tokens[:, 1:3], IGNORED
        logits, state = d.advance(state, chunk, [2] * 6)
        gap = (logits[:, :2] - d.expected[:, 2:4]).abs().max()
        assert gap < 1e-10, f"equal lengths: logits are off by {gap:.1e}"
        d.check(state, everything, [3] * 6, "after equal lengths")
        return
    logits, state = d.advance(state, chunk, lengths)
    assert logits.shape == (6, size, d.net.spec.vocab_size)
    gap = (logits - d.expected[:, 2 : 2 + size])[inside].abs().max()
    assert gap < 1e-10, f"ragged rows: logits are off by {gap:.1e}"
    one = state[:]
    _, one = d.advance(one, torch.full((6, 2), IGNORED), [0] * 6)
    for after, what in ((one, "after taking nothing"), (state, "after ragged rows")):
        at = torch.tensor([1 + n for n in lengths])
        token = d.tokens.gather(1, at.clamp(max=d.net.spec.length - 1)[:, None])
        room = [int(n < d.net.spec.length - 1) for n in at]  # a full row takes nothing
        last, _ = d.advance(after, token, room)
        fits = torch.tensor(room).bool()
        gap = (last[:, 0] - d.expected[everything, (at + 1).clamp(max=d.net.spec.length - 1)])[fits]
        assert gap.abs().max() < 1e-10, f"{what}: logits are off by {gap.abs().max():.1e}"
    if has_positions(d.at([0], 1), any):
        refused(
            lambda: d.advance(d.at([0, 1], 2), d.tokens[:2, : d.net.spec.length - 1]),
            "more tokens than there is room for",
        )


STATE_LAWS = [law_select, law_concatenate, law_assign, law_rewind, law_consumed, law_ragged]
