"""An LSTM layer that computes its weight gradient by one product over all steps.

It is for wide layers in bfloat16 on a CPU: there the backward pass of oneDNN accumulates the gradient step by
step, which takes most of the time at 650 features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WIDE = 600  # features; oneDNN is faster for narrower layers


def is_faster(x: Tensor, width: int) -> bool:
    """Whether `lstm` trains faster than torch's layer, for inputs x."""
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    return width >= WIDE and x.device.type == "cpu" and half and torch.is_grad_enabled()


@torch.compiler.disable  # because the compiler would unroll the loops
def lstm(
    x: Tensor, hidden: Tensor, cell: Tensor, weights: Sequence[Tensor], dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer, with torch.nn.LSTM's parameters and order of gates.

    Args:
        x: (B, T, size).
        hidden, cell: initial state, (B, width) each.
        weights: input weight, recurrent weight, and both biases.
        dtype: of the matrix products; everything else is in float32 or better.

    Returns: outputs (B, T, width), and the final hidden state and cell, (B, width) each.

    References:
        | Long Short-Term Memory (Hochreiter, Schmidhuber, 1997)
        | https://www.bioinf.jku.at/publications/older/2604.pdf
    """
    inputs, recurrent, *biases = weights
    bias = (biases[0] + biases[1]).to(dtype)
    projected = F.linear(x.transpose(0, 1).to(dtype), inputs.to(dtype), bias)
    outputs, hidden, cell = _Recurrence.apply(
        projected, hidden.to(dtype), cell, recurrent.to(dtype)
    )
    return outputs.transpose(0, 1), hidden, cell


class _Recurrence(torch.autograd.Function):
    """i, f, g, o = act(projected_t + W h_{t-1}); c_t = f c_{t-1} + i g; h_t = o tanh c_t."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, rows, gate_width = projected.shape
        width = gate_width // 4
        dtype = torch.promote_types(projected.dtype, torch.float32)
        gates = torch.empty(steps, rows, gate_width, dtype=dtype)
        tanhs = torch.empty(steps, rows, width, dtype=dtype)
        cells = torch.empty(steps + 1, rows, width, dtype=dtype)
        hiddens = torch.empty(steps + 1, rows, width, dtype=projected.dtype)
        cells[0], hiddens[0] = cell, hidden
        for t in range(steps):
            gate = gates[t]
            gate.copy_(torch.addmm(projected[t], hiddens[t], weight.t()))
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
        steps, rows, gate_width = gates.shape
        width, dtype = gate_width // 4, gates.dtype
        i, f, g, o = gates.split(width, dim=2)
        # Derivatives of c_t by the pre-activations of i, f, g, and of h_t by that of o, for all steps.
        slopes = torch.cat(
            [g * i * (1 - i), cells[:-1] * f * (1 - f), i * (1 - g * g), tanhs * o * (1 - o)], dim=2
        )
        output_slopes = o * (1 - tanhs * tanhs)  # derivative of h_t by c_t
        d_outputs, d_hidden, d_cell = d_outputs.to(dtype), d_hidden.to(dtype), d_cell.to(dtype)
        d_projected = torch.empty(steps, rows, gate_width, dtype=weight.dtype)
        by_gate = d_projected.view(steps, rows, 4, width)
        slopes = slopes.view(steps, rows, 4, width)
        for t in reversed(range(steps)):
            d_hidden = d_hidden + d_outputs[t]
            d_cell = torch.addcmul(d_cell, d_hidden, output_slopes[t])
            by_gate[t, :, :3] = slopes[t, :, :3] * d_cell[:, None]
            by_gate[t, :, 3] = slopes[t, :, 3] * d_hidden
            d_hidden = (d_projected[t] @ weight).to(dtype)
            d_cell = d_cell * f[t]
        d_weight = d_projected.flatten(0, 1).t() @ hiddens[:-1].flatten(0, 1)
        return d_projected, d_hidden.to(hiddens.dtype), d_cell, d_weight
