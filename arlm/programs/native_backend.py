"""Plays a tape as machine code, where numba is installed (`pip install arlm[native]`).

A small network at one pixel is a hundred tiny products; called from Python, each costs more than its
arithmetic. Here one compiled function reads the tape as a table of numbers and runs it, for every network
alike, so nothing is compiled for a network and no compiler is needed. `roll` draws a whole row of pixels
in one call. `arlm.programs.torch_backend` is the form that it must agree with.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arlm.programs.program import Operation, Program, Slice

INSTALLED = importlib.util.find_spec("numba") is not None
WIDE = 16  # lanes that one instruction serves
SIDE_BY_SIDE = 3  # images from which numbers lie lane by lane


def is_available(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether to play tapes natively: float32 on a CPU, unless the environment says ARLM_NATIVE=0."""
    fits = device.type == "cpu" and dtype == torch.float32
    return fits and INSTALLED and os.environ.get("ARLM_NATIVE") != "0"


def side_by_side(workspace: Tensor) -> Tensor:
    """The same (B, size) numbers; those of several images lane by lane in memory, up to a full width."""
    batch = len(workspace)
    if batch < SIDE_BY_SIDE:
        return workspace.contiguous()
    memory = workspace.new_zeros(workspace.shape[1], -(-batch // WIDE) * WIDE)
    memory[:, :batch] = workspace.T
    return memory.T[:batch]


def compiled() -> Any:
    """The compiled half. numba, imported only now, keeps its code by the age of one file."""
    paths = [Path(__file__).with_name(f"native_{part}.py") for part in ("code", "math")]
    code, parts = (path.stat().st_mtime for path in paths)
    if parts > code and os.access(paths[0], os.W_OK):
        paths[0].touch()  # what it is made of has changed since
    return importlib.import_module("arlm.programs.native_code")


class NativeBackend:
    """As `arlm.programs.torch_backend.Player`, on one arena (B, size) float32 from `side_by_side`."""

    def __init__(self, program: Program, workspace: Tensor) -> None:
        native_code = compiled()
        assert native_code.WIDE == WIDE
        self.code, self.program, self.rows = native_code, program, len(workspace)
        self.lanes = workspace.stride(1)
        images = 1 if self.lanes > 1 else self.rows
        self.memory = workspace.as_strided(
            (images, program.size * self.lanes), (program.size, 1)
        ).numpy()
        self.weights, tables = _tables(program, native_code, packed=self.lanes > 1)
        self.tables = np.zeros((len(tables), max(map(len, tables)), len(tables[0][0])), np.int64)
        for group, table in enumerate(tables):
            if table:
                self.tables[group, : len(table)] = table
        ends = np.cumsum([0] + [len(stage.operations) for stage in program.stages])
        stages = [
            (begin, end, stage.scan, stage.after)
            for stage, begin, end in zip(program.stages, ends, ends[1:], strict=False)
        ]
        self.stages = np.array(stages, np.int64).reshape(-1, 4)
        self.counts = np.array([len(table) for table in tables])
        self.scores = np.empty(program.height * program.width, np.float32)

    def start_row(self, row: int) -> None:
        """What the rows above say to a new row."""
        table, place = self.tables[-1], (row, self.program.width, self.lanes)
        self.code.start_row(self.memory, table, self.stages, self.weights, self.scores, *place)

    def run(self, row: int, column: int, group: int) -> None:
        """Compute one group of features at pixel (row, column)."""
        table = self.tables[group, : self.counts[group]]
        place = (row, column, self.program.width, self.lanes)
        self.code.run_pixel(self.memory, table, self.weights, self.scores, *place)

    def sample_row(
        self, row: int, values: Tensor, noise: Tensor, tokens: Tensor, logits: Tensor
    ) -> None:
        """Draw the pixels of a row from the logits that the tape leaves, each seeing those before it.

        Threads, as many as torch has, share out the batch.

        Args:
            values: (V,) intensities.
            noise: (B, W * C) float64 in [0, 1).
            tokens: (B, W * C) int64, -1 where one is to be drawn; is filled.
            logits: (B, W * C, V) float32, is filled.
        """
        program, slot = self.program, self.program.image.window()
        sizes = (
            program.width,
            program.channels,
            program.groups,
            slot.base,
            slot.right,
            program.out.base,
        )
        shape = np.array(sizes)
        uniform, drawn, scored = noise.contiguous().numpy(), tokens.numpy(), logits.numpy()
        level = values.to(torch.float32).numpy()

        def some(part: tuple[int, int]) -> None:
            first, last = part
            rows = slice(None) if self.lanes > 1 else slice(first, last)
            lanes = (self.lanes, *(part if self.lanes > 1 else (0, 1)))
            tables = (self.tables, self.counts, self.stages)
            fixed = (*tables, self.weights, np.empty_like(self.scores))
            own = (uniform[rows], drawn[rows], scored[rows])
            memory = self.memory if self.lanes > 1 else self.memory[rows]
            self.code.sample_row(memory, *fixed, row, shape, level, np.array(lanes), *own)

        count, unit = (self.lanes, WIDE) if self.lanes > 1 else (self.rows, 1)
        each = -(-count // unit // torch.get_num_threads()) * unit
        parts = [(n, min(n + each, count)) for n in range(0, count, each)]
        if len(parts) == 1:
            some(parts[0])
            return
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(some, parts))


def _packed(weight: Tensor) -> Tensor:
    """Weights (in, out) in the order in which lanes read them: four outputs at a time, then single ones."""
    fours = weight.shape[1] // 4 * 4
    groups = weight[:, :fours].unflatten(1, (-1, 4)).transpose(0, 1)
    return torch.cat([groups.flatten(), weight[:, fours:].T.flatten()])


def _tables(program: Program, code: Any, packed: bool) -> tuple[np.ndarray, list[list[list[int]]]]:
    """All weights in a row; a table of operations for each group, and one for the stages."""
    weights: list[np.ndarray] = []
    size = 0

    def place(part: Slice | None) -> list[int]:
        part = part or Slice(-1, 0)
        return [part.base, part.size, part.right, part.down, part.step]

    def entry(op: Operation) -> list[int]:
        nonlocal size
        begin = size
        if op.weight is not None:
            weights.append((_packed(op.weight) if packed else op.weight).numpy().ravel())
            size += weights[-1].size
        parts = [number for part in (op.a, op.b, op.c, op.out) for number in place(part)]
        return [getattr(code, op.code.name), *op.phase, begin, *parts]

    rows = [op for stage in program.stages for op in stage.operations]
    tables: list[Any] = [[entry(op) for op in some] for some in (*program.operations, rows)]
    return np.concatenate(weights), tables
