"""LSTMs that run over a whole image: row by row, or diagonal by diagonal in both directions.

References:
    | Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016), sections 3.1-3.2
    | https://arxiv.org/abs/1601.06759
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arlm.core import Spec
from arlm.layers.masked_conv import MaskedConv2d


def lstm_cell(gates: Tensor, cell: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Equation 3 of the paper; gates are o, f, i (sigmoid) and g (tanh).

    Args:
        gates: (N, 4h), each group of channels with its own o, f, i, g.
        cell: (N, h).

    Returns: hidden and cell, (N, h) each.
    """
    size = cell.shape[1] // groups
    ofi, g = gates.unflatten(1, (groups, 4 * size)).split([3 * size, size], dim=-1)
    o, f, i = ofi.sigmoid().split(size, dim=-1)
    cell = torch.addcmul(i * g.tanh(), f, cell.unflatten(1, (groups, size)))
    return (o * cell.tanh()).flatten(1), cell.flatten(1)


def initial_state(width: int, directions: int) -> nn.Parameter:
    """Learned hidden and cell state that a direction begins from, (directions, 2, h)."""
    return nn.Parameter(torch.zeros(directions, 2, width))


class RowLayer(nn.Module):
    """h(row) = LSTM(1x3 of the input row, mask B; 1x3 of h(row above), unmasked).

    Shapes: (H * W, B, 2h) in raster order -> hidden states (H * W, B, h).
    """

    def __init__(self, width: int, spec: Spec) -> None:
        super().__init__()
        self.height, self.columns, self.channels = spec.shape
        self.input = MaskedConv2d("B", 2 * width, 4 * width, (1, 3), self.channels)
        self.state = nn.Parameter(torch.empty(3, width, 4 * width))  # taps left, above, right
        nn.init.uniform_(self.state, -((3 * width) ** -0.5), (3 * width) ** -0.5)
        self.initial = initial_state(width, 1)

    def forward(self, x: Tensor, _: object) -> Tensor:
        batch = x.shape[1]
        rows = x.unflatten(0, (self.height, self.columns))
        to_left, to_right = self.input.here().chunk(2)  # what a pixel says to the next, to itself
        left = F.pad(rows[:, :-1], (0, 0, 0, 0, 1, 0)).flatten(0, 2)
        z = torch.addmm(self.input.bias, rows.flatten(0, 2), to_right)
        z = torch.addmm(z, left, to_left).view(self.height, -1, z.shape[1])
        hidden, cell = (s.expand(self.columns * batch, -1) for s in self.initial[0])
        steps = []
        for gates in z.unbind():  # z[i] would cost a gradient of z's size in each row
            around = F.pad(hidden, (0, 0, batch, batch))
            seen = [around[k * batch : (k + self.columns) * batch] for k in range(3)]
            gates = torch.addmm(gates, torch.cat(seen, dim=1), self.state.flatten(0, 1))
            hidden, cell = lstm_cell(gates, cell, self.channels)
            steps.append(hidden)
        return torch.cat(steps).unflatten(0, (-1, batch))


class DiagonalLayer(nn.Module):
    """h(i, j) from h(i, j - 1) and h(i - 1, j), and the mirror image of that, shifted down by one row.

    A step computes a diagonal, i + j = t, of both directions. The paper skews the map, row i by i
    places, so that diagonals are columns; here pixels are kept in the order of their diagonals, which
    leaves no padding that could begin to run before its row does:

        a b c          a | b d | c e g | f h | i
        d e f    ->    step 0, 1, ... H + W - 2
        g h i

    Shapes: (H * W, B, 2h) in that order -> hidden states (H * W, B, h), the sum of both directions.
    """

    flipped: Tensor
    shifted: Tensor

    def __init__(self, width: int, spec: Spec) -> None:
        super().__init__()
        self.height, self.columns, self.channels = spec.shape
        self.input = MaskedConv2d("B", 2 * width, 4 * width, 1, self.channels)
        self.mirror = nn.Linear(2 * width, 4 * width)  # sees finished rows only: no mask
        self.state = nn.Parameter(torch.empty(2, 2, width, 4 * width))  # direction; tap here, above
        nn.init.uniform_(self.state, -((2 * width) ** -0.5), (2 * width) ** -0.5)
        self.initial = initial_state(width, 2)
        order = diagonal_order(self.height, self.columns)
        place = order.argsort().view(self.height, self.columns)  # of pixel (i, j) among diagonals
        mirrored = place.flip(1)  # of pixel (i, j) in the mirror image
        self.register_buffer("flipped", mirrored.flatten()[order], persistent=False)
        # Down by a row: the first row takes zeros, which are appended; the last row falls out.
        zeros = len(order) + torch.arange(self.columns)
        source = torch.cat([zeros, mirrored[:-1].flatten()])[order]
        shifted = torch.cat([source, mirrored[-1]])
        self.register_buffer("shifted", shifted, persistent=False)

    def forward(self, x: Tensor, more: Tensor | float) -> Tensor:
        height, columns, batch = self.height, self.columns, x.shape[1]
        sizes = [len(diagonal_rows(t, height, columns)) for t in range(height + columns - 1)]
        z = torch.stack(
            [
                F.linear(x, self.input.here().T, self.input.bias),
                self.mirror(reorder(x + more, self.flipped)),
            ]
        )
        initial = self.initial[:, :, None, None].expand(-1, -1, 1, batch, -1)
        nothing = torch.zeros_like(initial[:, 0])  # above the first row
        hidden = cell = nothing[:, :0]
        steps = []
        for t, gates in enumerate(z.split(sizes, dim=1)):
            # Rows from the one above the first of the diagonal to its last, which may begin here.
            above = [nothing] if t < columns else []
            begun, begun_cell = ([initial[:, s]] if t < height else [] for s in range(2))
            known = torch.cat([*above, hidden, *begun], dim=1)
            cell = torch.cat([cell if above else cell[:, 1:], *begun_cell], dim=1)
            sums = torch.baddbmm(gates.flatten(1, 2), known[:, 1:].flatten(1, 2), self.state[:, 0])
            sums = torch.baddbmm(sums, known[:, :-1].flatten(1, 2), self.state[:, 1])
            new = lstm_cell(sums.flatten(0, 1), cell.flatten(0, 2), self.channels)
            hidden, cell = (s.unflatten(0, (2, -1, batch)) for s in new)
            steps.append(hidden)
        forth, back = torch.cat(steps, dim=1)
        down = reorder(F.pad(back, (0, 0, 0, 0, 0, columns)), self.shifted)
        return forth + down[: height * columns]


def diagonal_rows(t: int, height: int, columns: int) -> range:
    """The rows i whose pixel (i, t - i) is on diagonal t."""
    return range(max(0, t - columns + 1), min(t, height - 1) + 1)


def diagonal_order(height: int, columns: int) -> Tensor:
    """Raster places of the pixels, diagonal by diagonal, (H * W,)."""
    steps = range(height + columns - 1)
    places = [i * columns + t - i for t in steps for i in diagonal_rows(t, height, columns)]
    return torch.tensor(places)


class Reorder(torch.autograd.Function):
    """x[order]; the gradient is a selection too, where indexing's own would add up one by one."""

    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return gradient.index_select(0, order.argsort()), None


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Rows of x in another order, which names each row once."""
    return Reorder.apply(x, order)
