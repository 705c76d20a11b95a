"""Runs a program as machine code, where numba is installed (`pip install arlm[native]`).

At one pixel, a small network is a hundred tiny products, and a call from Python costs more than the
arithmetic of each. Here one compiled function interprets the program, given as a table of integers:

    one row for each operation     [opcode, phase (3), start of its weight, a (5), b (5), c (5), out (5)]
    a, b, c, out                   base, size, right, down and step of a `Slice`; base -1 for None

It is the same function for all networks, so no network needs a compilation of its own. With three or more
images, each image is a SIMD lane, and one instruction processes the same number of 16 images:

    workspace in memory, 1 or 2 images     all numbers of image 0, all numbers of image 1
    3 images or more                       number 0 of every image, number 1 of every image, ...

The results agree with those of `arlm.programs.torch_backend` up to rounding.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arlm.programs.program import Operation, Program, Slice

INSTALLED = importlib.util.find_spec("numba") is not None
CODE = "arlm.programs.native_code"
SOURCES = [Path(__file__).with_name(f"native_{part}.py") for part in ("code", "math", "rules")]
SIMD_WIDTH = 16  # lanes that one instruction processes
RULES = ("temperature", "top_k", "top_p", "min_p")  # processors that machine code applies
MIN_LANES = 3  # images in the smallest batch that is stored as lanes


def is_available(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether programs can run as machine code: float32 on a CPU, and numba is installed."""
    return device.type == "cpu" and dtype == torch.float32 and INSTALLED


def is_started() -> bool:
    """Whether this process has imported the compiled functions."""
    return CODE in sys.modules


def is_compiled() -> bool:
    """Whether an earlier process has left the machine code on disk; numba is not imported to find out."""
    if not INSTALLED:
        return False
    version = importlib.metadata.version("numba").encode()
    for index in _indices("run"):
        with suppress(OSError), index.open("rb") as file:
            # An index begins with the version of numba that wrote it; others do not read it.
            if version in file.read(64) and index.stat().st_mtime >= _changed():
                return True
    return False


def _changed() -> float:
    """When the source of the machine code was changed last."""
    return max(path.stat().st_mtime for path in SOURCES)


def _indices(function: str = "*") -> list[Path]:
    """numba's index files of the functions of `native_code`, in the folders where numba may keep them."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    if sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    named = os.environ.get("NUMBA_CACHE_DIR")
    # Beside the source, unless that folder cannot be written.
    folders = [Path(named)] if named else [SOURCES[0].parent, Path(cache) / "numba"]
    python = f"py{sys.version_info.major}{sys.version_info.minor}{sys.abiflags}"
    pattern = f"*/{SOURCES[0].stem}.{function}-*.{python}.nbi"
    return [path for folder in folders for path in folder.glob(pattern)]


def side_by_side(workspace: Tensor) -> Tensor:
    """Bring a workspace (B, size) into the memory layout of this backend, with lanes padded to SIMD_WIDTH."""
    batch = len(workspace)
    if batch < MIN_LANES:
        return workspace.contiguous()
    memory = workspace.new_zeros(workspace.shape[1], -(-batch // SIMD_WIDTH) * SIMD_WIDTH)
    memory[:, :batch] = workspace.T
    return memory.T[:batch]


def compiled() -> Any:
    """Import `native_code`, and numba with it, which is slow, only when it is needed.

    numba compiles a function again only if its own file has changed, so what was compiled before
    native_math.py or native_rules.py changed is removed.
    """
    if not is_started():
        for index in _indices():
            with suppress(
                OSError
            ):  # another process has removed it, or the folder cannot be written
                if index.stat().st_mtime < _changed():
                    index.unlink()
    return importlib.import_module(CODE)


class NativeBackend:
    """Runs a program on a workspace (B, size) float32 from `side_by_side`."""

    def __init__(self, program: Program, workspace: Tensor) -> None:
        native_code = compiled()
        assert native_code.SIMD_WIDTH == SIMD_WIDTH
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
        """Run the stages of a new image row, which compute everything that depends on finished rows only."""
        table, sizes = self.tables[-1], (self.program.width, self.lanes)
        self.code.start_row(self.memory, table, self.stages, self.weights, self.scores, row, *sizes)

    def run(self, row: int, column: int, group: int) -> None:
        """Compute one group of features at pixel (row, column)."""
        table = self.tables[group, : self.counts[group]]
        sizes = (self.program.width, self.lanes)
        self.code.run_pixel(self.memory, table, self.weights, self.scores, row, column, *sizes)

    def sample_row(
        self,
        row: int,
        values: Tensor,
        noise: Tensor,
        tokens: Tensor,
        logits: Tensor,
        rules: Sequence[tuple[str, float]] = (),
    ) -> None:
        """Draw the pixels of an image row one after the other, from the logits that the program computes.

        The batch is divided among as many threads as torch uses.

        Args:
            values: (V,) intensities.
            noise: (B, W * C) float64 in [0, 1).
            tokens: (B, W * C) int64, -1 where a token is to be drawn; written in place.
            logits: (B, W * C, V) float32; written in place, without the rules.
            rules: names of `RULES` and their numbers, applied in order before a token is drawn.
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
        limits = {"top_k": len(level)}  # a larger number may be none of int64
        coded = np.array(
            [(RULES.index(name), min(number, limits.get(name, number))) for name, number in rules],
            np.float64,
        )

        def sample_part(bounds: tuple[int, int]) -> None:
            first, last = bounds
            rows = slice(None) if self.lanes > 1 else slice(first, last)
            lanes = (self.lanes, *(bounds if self.lanes > 1 else (0, 1)))
            tables = (self.tables, self.counts, self.stages)
            inputs = (*tables, self.weights, np.empty_like(self.scores))
            own = (uniform[rows], drawn[rows], scored[rows])
            shaped = (coded.reshape(-1, 2), np.empty_like(level), np.empty(len(level), np.int64))
            memory = self.memory if self.lanes > 1 else self.memory[rows]
            self.code.sample_row(memory, *inputs, row, shape, level, np.array(lanes), *own, *shaped)

        count, unit = (self.lanes, SIMD_WIDTH) if self.lanes > 1 else (self.rows, 1)
        each = -(-count // unit // torch.get_num_threads()) * unit
        parts = [(n, min(n + each, count)) for n in range(0, count, each)]
        if len(parts) == 1:
            sample_part(parts[0])
            return
        with ThreadPoolExecutor(len(parts)) as pool:
            list(pool.map(sample_part, parts))


def _packed(weight: Tensor) -> Tensor:
    """Weights (in, out) in the order that `linear_lanes` needs: groups of four outputs, then single ones."""
    fours = weight.shape[1] // 4 * 4
    groups = weight[:, :fours].unflatten(1, (-1, 4)).transpose(0, 1)
    return torch.cat([groups.flatten(), weight[:, fours:].T.flatten()])


def _tables(program: Program, code: Any, packed: bool) -> tuple[np.ndarray, list[list[list[int]]]]:
    """All weights, concatenated; a table of operations for each channel group, then one for the stages."""
    weights: list[np.ndarray] = []
    size = 0

    def numbers(part: Slice | None) -> list[int]:
        part = part or Slice(-1, 0)
        return [part.base, part.size, part.right, part.down, part.step]

    def entry(op: Operation) -> list[int]:
        nonlocal size
        begin = size
        if op.weight is not None:
            weights.append((_packed(op.weight) if packed else op.weight).numpy().ravel())
            size += weights[-1].size
        slices = [number for part in (op.a, op.b, op.c, op.out) for number in numbers(part)]
        return [getattr(code, op.code.name), *op.phase, begin, *slices]

    staged = [op for stage in program.stages for op in stage.operations]
    tables: list[Any] = [[entry(op) for op in ops] for ops in (*program.operations, staged)]
    return np.concatenate(weights), tables
