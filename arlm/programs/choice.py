"""Which backend runs a program: machine code where it saves more time than it takes to start.

torch needs a call for each operation at each pixel, which takes longer than the arithmetic of a small network.
Machine code needs no calls, but before its first number numba is imported, and the code is read from disk, or
compiled where no earlier process has done so:

    seconds       start                     at work
    torch         0                         calls * CALL + products * (WEIGHT + images * TORCH)
    native        READ, or COMPILE,         products * images * ALONE, up to 2 images
                  or 0 in a process that    products * 16 * ceil(images / 16) * SIDE_BY_SIDE
                  has started it

`$ARLM_NATIVE` is `auto` by default; `1` always takes machine code where it can run, and `0` never. The start was
measured, and the other seconds chosen, with `python -m tools.bench.backends`, which prints what machine code saves
beside the estimate. On another machine all of them change; only their ratios matter for the choice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import torch

from arlm.errors import UserError
from arlm.programs.native_backend import (
    MIN_LANES,
    SIMD_WIDTH,
    is_available,
    is_compiled,
    is_started,
)
from arlm.programs.program import Opcode, Operation, Program

CALL = 3.0e-6
WEIGHT, TORCH = 1.8e-10, 4.0e-11
ALONE, SIDE_BY_SIDE = 9.0e-11, 2.5e-11
READ, COMPILE = 1.5, 11.0
# Calls of the torch backend for an operation; 1 for the others.
CALLS = {
    Opcode.ELU: 2,
    Opcode.CONCAT_ELU: 3,
    Opcode.TANH_GATE: 3,
    Opcode.GATE: 2,
    Opcode.LSTM: 6,
    Opcode.ATTEND: 5,
}


class Work(NamedTuple):
    """What a program does for a batch of images.

    Args:
        calls: of torch, for a batch of any size.
        products: multiplications for one image.
        images: in the batch.
    """

    calls: float
    products: float
    images: int

    @property
    def saved(self) -> float:
        """Seconds that machine code takes less than torch, its start not counted; negative if it takes more."""
        torch_seconds = self.calls * CALL + self.products * (WEIGHT + self.images * TORCH)
        if self.images < MIN_LANES:
            return torch_seconds - self.products * self.images * ALONE
        lanes = -(-self.images // SIMD_WIDTH) * SIMD_WIDTH
        return torch_seconds - self.products * lanes * SIDE_BY_SIDE


def work_of(program: Program, images: int, tokens: int) -> Work:
    """The work for the first `tokens` tokens of each of `images` images."""
    pixels = -(-tokens // program.channels)
    rows = -(-pixels // program.width)
    calls = products = 0.0
    for operations in program.operations:
        for op in operations:
            calls += CALLS.get(op.code, 1) * pixels / op.phase[0] ** 2
            products += _products(op, pixels) * pixels / op.phase[0] ** 2
    for stage in program.stages:
        for op in stage.operations:
            # A scan makes a call for each column of a row, other stages one for the row.
            times = pixels / op.phase[0] if stage.scan else rows
            calls += CALLS.get(op.code, 1) * times / op.phase[0]
            products += _products(op, pixels) * pixels / op.phase[0] ** 2
    return Work(calls, products, images)


def _products(op: Operation, pixels: int) -> float:
    """Multiplications of an operation at a pixel; attention reads half of the pixels on average."""
    if op.code is Opcode.LINEAR:
        return 0 if op.weight is None else op.weight.numel()
    if op.code is Opcode.ATTEND:
        return sum(part.size for part in (op.b, op.c) if part) * pixels / 2
    return op.out.size


def start_seconds(started: bool, compiled: bool) -> float:
    """Seconds before machine code computes its first number.

    Args:
        started: this process has run machine code.
        compiled: an earlier process has compiled it and left it on disk.
    """
    return 0.0 if started else READ if compiled else COMPILE


@dataclass
class Choice:
    """Chooses the backend, batch after batch.

    Args:
        missed: seconds that machine code would have saved so far. A process that draws small batches again and
            again starts it when they have cost as much as the start; so it never takes more than about twice
            the time of the better choice.
    """

    missed: float = 0.0

    def is_native_faster(self, work: Work, start: float) -> bool:
        """Whether machine code saves more than its start takes; nothing is added to `missed`."""
        return work.saved > 0 and self.missed + work.saved > start

    def take(self, work: Work, start: float) -> bool:
        """As `is_native_faster`; if not, what torch takes longer is added to `missed`."""
        native = self.is_native_faster(work, start)
        if not native:
            self.missed += max(0.0, work.saved)
        return native


CHOICE = Choice()  # of this process


def use_native(
    program: Program,
    images: int,
    tokens: int,
    dtype: torch.dtype,
    device: torch.device,
    take: bool = True,
) -> bool:
    """Whether machine code runs the program for `tokens` tokens of each of `images` images.

    Args:
        take: count the batch as drawn; False only asks.
    """
    setting = os.environ.get("ARLM_NATIVE") or "auto"
    if setting not in ("auto", "0", "1"):
        raise UserError(f"ARLM_NATIVE: {setting!r} is not known; choose auto, 0 or 1")
    if setting == "0" or not is_available(dtype, device):
        return False
    if setting == "1":
        return True
    started = is_started()
    start = start_seconds(started, started or is_compiled())
    work = work_of(program, images, tokens)
    return (CHOICE.take if take else CHOICE.is_native_faster)(work, start)
