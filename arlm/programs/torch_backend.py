"""Runs a program with torch calls on views of the workspace."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.programs.program import Opcode, Operation, Program


class TorchBackend:
    """Runs a program on a workspace (B, size).

    Views and calls are prepared once, so that a pixel costs only a list of calls with bound arguments: a
    call takes about a microsecond, and a small network spends nearly all of its time in calls.
    """

    def __init__(self, program: Program, workspace: Tensor) -> None:
        self.program, self.workspace = program, workspace
        flat = [op for group in program.operations for op in group]
        flat += [op for stage in program.stages for op in stage.operations]
        parts = [p for op in flat for p in (op.a, op.b, op.c, op.out) if p]
        self.period = math.lcm(*(op.phase[0] for op in flat))
        self.reusable = not any(p.down for p in parts)  # the same calls serve all rows of a phase
        self.rows: dict[int, list[list[list[Callable]]]] = {}
        self.stages: dict[tuple[int, int], list[list[Callable]]] = {}

    def run(self, row: int, column: int, group: int) -> None:
        """Compute one group of features at pixel (row, column)."""
        key = row % self.period if self.reusable else row
        if key not in self.rows:
            if not self.reusable:
                self.rows.clear()
            self.rows[key] = [
                self._calls(operations, row) for operations in self.program.operations
            ]
        for call in self.rows[key][group][column]:
            call()

    def start_row(self, row: int) -> None:
        """Run the stages of a new image row, which compute everything that depends on finished rows only."""
        key = row % self.period
        for index, stage in enumerate(self.program.stages):
            if row < stage.after:
                continue
            if (index, key) not in self.stages:
                calls = self._calls if stage.scan else self._row_calls
                self.stages[index, key] = calls(stage.operations, row)
            for column in reversed(self.stages[index, key]):
                for call in column:
                    call()

    def _row_calls(self, operations: list[Operation], row: int) -> list[list[Callable]]:
        """Calls that compute operations at all columns of a row at once, in a single list."""
        calls: list[Callable] = []
        for op in operations:
            n, y, x = op.phase
            if row % n != y:
                continue
            columns = range(x, self.program.width, n)
            parts = (op.a, op.b, op.c, op.out)
            views: list[Any] = [p and p.row_view(self.workspace, row, columns) for p in parts]
            a, b, c, out = views
            if op.weight is not None:
                calls.append(partial(row_linear, a, op.weight, b, out))
            else:
                calls += CALLS[op.code](op, a, b, c, out)
        return [calls]

    def _calls(self, operations: list[Operation], row: int) -> list[list[Callable]]:
        """For each column of a row, the calls that compute operations at its pixel."""
        width = self.program.width
        calls: list[list[Callable]] = [[] for _ in range(width)]
        for op in operations:
            n, y, x = op.phase
            if row % n != y:
                continue
            a, out = (
                op.a.column_views(self.workspace, row, width),
                op.out.column_views(self.workspace, row, width),
            )
            b = op.b.column_views(self.workspace, row, width) if op.b else [None] * width
            if op.code is Opcode.ATTEND:
                for j in range(width):
                    calls[j].append(self._attend(op, row * width + j, a[j], out[j]))
                continue
            c = op.c.column_views(self.workspace, row, width) if op.c else [None] * width
            for j in range(x, width, n):
                calls[j] += CALLS[op.code](op, a[j], b[j], c[j], out[j])
        return calls

    def _attend(self, op: Operation, earlier: int, query: Tensor, out: Tensor) -> Callable:
        """softmax(q k^T / sqrt(d)) v over the first `earlier` pixels."""
        assert op.b is not None
        assert op.c is not None
        batch, total = self.workspace.shape
        keys, values = (
            self.workspace.as_strided(
                (batch, earlier, part.size), (total, part.right, 1), part.base
            )
            for part in (op.b, op.c)
        )
        return partial(attend, query, keys, values, out)


def attend(query: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
    """One query (B, d) over keys (B, n, d) and values (B, n, e); zeros if n is 0."""
    if not keys.shape[1]:
        out.zero_()
        return
    scores = torch.bmm(keys, query.unsqueeze(2)).squeeze(2)
    weights = torch.softmax(scores * query.shape[1] ** -0.5, dim=1)
    out.copy_(torch.bmm(weights.unsqueeze(1), values).squeeze(1))


def row_linear(a: Tensor, weight: Tensor, b: Tensor | None, out: Tensor) -> None:
    """out = a @ weight, plus b, at several columns: (columns, B, in) -> (columns, B, out)."""
    y = a @ weight
    out.copy_(y if b is None else y.add_(b))


def _linear(op: Operation, a: Tensor, b: Tensor | None, c: None, out: Tensor) -> list[Callable]:
    if b is None:
        return [partial(torch.mm, a, op.weight, out=out)]
    return [partial(torch.addmm, b, a, op.weight, out=out)]


def _relu(op: Operation, a: Tensor, b: None, c: None, out: Tensor) -> list[Callable]:
    in_place = op.a == op.out
    return [partial(torch.relu_, out) if in_place else partial(torch.clamp, a, min=0, out=out)]


def _elu(op: Operation, a: Tensor, b: None, c: None, out: Tensor) -> list[Callable]:
    return [*([] if op.a == op.out else [partial(out.copy_, a)]), partial(F.elu_, out)]


def _concat_elu(op: Operation, a: Tensor, b: None, c: None, out: Tensor) -> list[Callable]:
    first, second = out.chunk(2, dim=-1)
    return [partial(first.copy_, a), partial(torch.neg, a, out=second), partial(F.elu_, out)]


def _tanh_gate(op: Operation, a: Tensor, b: None, c: None, out: Tensor) -> list[Callable]:
    left, right = a.chunk(2, dim=-1)
    sigmoid = partial(torch.sigmoid_, right)
    return [sigmoid, partial(torch.tanh, left, out=out), partial(out.mul_, right)]


def _gate(op: Operation, a: Tensor, b: Tensor, c: None, out: Tensor) -> list[Callable]:
    left, right = a.chunk(2, dim=-1)
    return [partial(torch.sigmoid_, right), partial(torch.addcmul, b, left, right, out=out)]


def _lstm(op: Operation, a: Tensor, b: Tensor, c: Tensor, out: Tensor) -> list[Callable]:
    size = out.shape[-1]
    o, f, i, g = a.split(size, dim=-1)
    return [
        partial(torch.sigmoid_, a[..., : 3 * size]),
        partial(torch.tanh_, g),
        partial(torch.mul, f, b, out=c),
        partial(c.addcmul_, i, g),
        partial(torch.tanh, c, out=out),
        partial(out.mul_, o),
    ]


def _add(op: Operation, a: Tensor, b: Tensor, c: None, out: Tensor) -> list[Callable]:
    return [partial(torch.add, a, b, out=out)]


def _copy(op: Operation, a: Tensor, b: None, c: None, out: Tensor) -> list[Callable]:
    return [partial(out.copy_, a)]


CALLS: dict[Opcode, Callable] = {
    Opcode.LINEAR: _linear,
    Opcode.RELU: _relu,
    Opcode.ELU: _elu,
    Opcode.CONCAT_ELU: _concat_elu,
    Opcode.TANH_GATE: _tanh_gate,
    Opcode.GATE: _gate,
    Opcode.LSTM: _lstm,
    Opcode.ADD: _add,
    Opcode.COPY: _copy,
}
