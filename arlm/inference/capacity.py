"""What sampling and searching need in memory, estimated before it is taken.

    rows x tokens x (tokens, noise, log-probabilities)   +   rows x state of a row   +   rows x vocabulary x logits

A request that exceeds the machine is refused in one line; without that, the system kills the process, or an
allocator reports a number of bytes that no option names.
"""

from __future__ import annotations

import torch

from arlm.core import Autoregressor, device_of
from arlm.data.machine import check_memory, machine_memory
from arlm.sampling.inference_context import inference_context
from arlm.states import State

ROW_BYTES = 80  # of a token: in rows, log-probabilities and their copies
LOGIT_BYTES = 40  # of a logit: in float64, as probabilities and as their sums
SMALL = 2**14  # tokens in all rows below which the state is not measured
TOGETHER = 2**16  # tokens of texts that are drawn together
TRIED = 64  # tokens that are read to measure a state


def sampling_bytes(net: Autoregressor, rows: int, length: int, positions: int = 1) -> int:
    """Bytes that `rows` rows of `length` tokens need while they are drawn, or searched for.

    Args:
        net: on its device.
        rows: that are drawn together; of a search, all beams.
        length: tokens of the longest row.
        positions: of a row whose logits are computed at once.
    """
    logits = positions * net.spec.vocab_size
    needed = rows * (length * ROW_BYTES + logits * LOGIT_BYTES)
    if rows * length <= SMALL:
        return needed
    return needed + rows * state_bytes(net, length)


def state_bytes(net: Autoregressor, length: int) -> int:
    """Bytes of the state of one row of `length` tokens, from those of a short one; without that of its context."""
    spec, device = net.spec, device_of(net)
    zeros = torch.zeros(1, TRIED, dtype=torch.long, device=device)
    context = None if spec.context is None else zeros[:, :1]
    with inference_context(net):
        if len(spec.shape) > 1:  # drawn by a program, whose workspace does not grow
            return _size(net.start(1, length, context)[1])
        held = length if net.max_length is None else min(length, net.max_length)  # a window slides
        tried = min(TRIED, held - 1)
        _, state = net.start(1, min(held, 2 * TRIED), context)
        before = _size(state)
        if tried:
            _, state = net.advance(zeros[:, :tried], state)
        # A cache doubles when it is full.
        return before + 2 * max(0, _size(state) - before) * held // max(1, tried)


def _size(state: State) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in state.leaves())


def rows_together(net: Autoregressor, length: int) -> int:
    """How many texts of `length` tokens are drawn in one batch, which holds at most half of the memory."""
    rows = max(1, TOGETHER // length)
    each, there = sampling_bytes(net, rows, length) // rows, machine_memory(device_of(net))
    return max(1, min(rows, there // 2 // each))


def check_capacity(
    net: Autoregressor, rows: int, length: int, option: str, value: object, positions: int = 1
) -> None:
    """Refuse rows that do not fit into memory; see `sampling_bytes`.

    Args:
        net, rows, length, positions: as for `sampling_bytes`.
        option: the option to lower.
        value: of the option.
    """
    needed = sampling_bytes(net, rows, length, positions)
    check_memory(needed, option, value, device_of(net))
