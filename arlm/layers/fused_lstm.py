"""An LSTM layer whose weight gradient is one product over all steps: for wide layers in bfloat16 on a CPU.

oneDNN's own backward pass adds up the gradient step by step, which at 650 features costs most of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WIDE = 600  # features; narrower layers are faster by oneDNN


def is_faster(x: Tensor, width: int) -> bool:
    """Whether `lstm` trains faster than torch's layer, for inputs x."""
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    return width >= WIDE and x.device.type == "cpu" and half and torch.is_grad_enabled()


@torch.compiler.disable  # the compiler would unroll its loops
def lstm(
    x: Tensor, hidden: Tensor, cell: Tensor, weights: Sequence[Tensor], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer, with torch.nn.LSTM's parameters and order of gates.

    Args:
        x: (B, T, size).
        hidden, cell: (B, width), what the layer remembers.
        weights: of the inputs, of the recurrence, and both biases.
        dtype: of the products; everything else has at least 32 bits.

    Returns: outputs (B, T, width), and what the layer remembers then.

    References:
        | Long Short-Term Memory (Hochreiter, Schmidhuber, 1997)
        | https://www.bioinf.jku.at/publications/older/2604.pdf
    """
    inputs, recurrent, *biases = weights
    bias = (biases[0] + biases[1]).to(dtype)
    given = F.linear(x.transpose(0, 1).to(dtype), inputs.to(dtype), bias)
    outputs, hidden, cell = _Recurrence.apply(given, hidden.to(dtype), cell, recurrent.to(dtype))
    return outputs.transpose(0, 1), hidden, cell


class _Recurrence(torch.autograd.Function):
    """i, f, g, o = given_t + W h_{t-1}; c_t = f c_{t-1} + i g; h_t = o tanh c_t; squashed by gate."""

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, rows, four = given.shape
        width = four // 4
        fine = torch.promote_types(given.dtype, torch.float32)
        gates = torch.empty(steps, rows, four, dtype=fine)
        tanhs = torch.empty(steps, rows, width, dtype=fine)
        cells = torch.empty(steps + 1, rows, width, dtype=fine)
        hiddens = torch.empty(steps + 1, rows, width, dtype=given.dtype)
        cells[0], hiddens[0] = cell, hidden
        for t in range(steps):
            gate = gates[t]
            gate.copy_(torch.addmm(given[t], hiddens[t], weight.t()))
            i, f, g, o = gate.split(width, dim=1)
            gate[:, : 2 * width].sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.addcmul(f * cells[t], i, g, out=cells[t + 1])
            torch.tanh(cells[t + 1], out=tanhs[t])
            hiddens[t + 1] = o * tanhs[t]
        ctx.save_for_backward(gates, tanhs, cells, hiddens, weight)
        return hiddens[1:], hiddens[-1].clone(), cells[-1].clone()

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, d_outputs: Tensor, d_hidden: Tensor, d_cell: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        gates, tanhs, cells, hiddens, weight = ctx.saved_tensors
        steps, rows, four = gates.shape
        width, fine = four // 4, gates.dtype
        i, f, g, o = gates.split(width, dim=2)
        # What a step's gates do to its cell (the first three) and to its output, all steps at once.
        slopes = torch.cat(
            [g * i * (1 - i), cells[:-1] * f * (1 - f), i * (1 - g * g), tanhs * o * (1 - o)], dim=2
        )
        through = o * (1 - tanhs * tanhs)  # from an output to its cell
        d_outputs, d_hidden, d_cell = d_outputs.to(fine), d_hidden.to(fine), d_cell.to(fine)
        d_given = torch.empty(steps, rows, four, dtype=weight.dtype)
        by_gate = d_given.view(steps, rows, 4, width)
        slopes = slopes.view(steps, rows, 4, width)
        for t in reversed(range(steps)):
            d_hidden = d_hidden + d_outputs[t]
            d_cell = torch.addcmul(d_cell, d_hidden, through[t])
            by_gate[t, :, :3] = slopes[t, :, :3] * d_cell[:, None]
            by_gate[t, :, 3] = slopes[t, :, 3] * d_hidden
            d_hidden = (d_given[t] @ weight).to(fine)
            d_cell = d_cell * f[t]
        d_weight = d_given.flatten(0, 1).t() @ hiddens[:-1].flatten(0, 1)
        return d_given, d_hidden.to(hiddens.dtype), d_cell, d_weight
