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
        gates: (N, 4h), each channel group with its own o, f, i, g, before the activation.
        cell: (N, h).

    Returns: hidden and cell, (N, h) each.
    """
    size = cell.shape[1] // groups
    ofi, g = gates.unflatten(1, (groups, 4 * size)).split([3 * size, size], dim=-1)
    o, f, i = ofi.sigmoid().split(size, dim=-1)
    cell = torch.addcmul(i * g.tanh(), f, cell.unflatten(1, (groups, size)))
    return (o * cell.tanh()).flatten(1), cell.flatten(1)


def initial_state(width: int, directions: int) -> nn.Parameter:
    """Learned initial hidden state and cell of each direction, (directions, 2, h)."""
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
        left_weight, own_weight = self.input.here().chunk(2)  # mask B hides the right tap
        left = F.pad(rows[:, :-1], (0, 0, 0, 0, 1, 0)).flatten(0, 2)
        z = torch.addmm(self.input.bias, rows.flatten(0, 2), own_weight)
        z = torch.addmm(z, left, left_weight).view(self.height, -1, z.shape[1])
        hidden, cell = (s.expand(self.columns * batch, -1) for s in self.initial[0])
        steps = []
        for gates in z.unbind():  # indexing z[i] would allocate a gradient of z's size for each row
            padded = F.pad(hidden, (0, 0, batch, batch))
            taps = [padded[k * batch : (k + self.columns) * batch] for k in range(3)]
            gates = torch.addmm(gates, torch.cat(taps, dim=1), self.state.flatten(0, 1))
            hidden, cell = lstm_cell(gates, cell, self.channels)
            steps.append(hidden)
        return torch.cat(steps).unflatten(0, (-1, batch))


class DiagonalLayer(nn.Module):
    """An LSTM along the diagonals, h(i, j) from h(i, j - 1) and h(i - 1, j), in both directions.

    The right-to-left direction runs over the mirror image and is shifted down by one row, to be causal.
    Step t computes the diagonal i + j = t of both directions. The paper skews the map so that diagonals become
    columns, which needs padding. Here pixels are stored diagonal by diagonal, so that no state passes through
    padding:

        a b c          a | b d | c e g | f h | i          t = 0, 1, ... H + W - 2
        d e f    ->
        g h i          step 3: f from e (left) and c (above); h from g (left) and e (above)

    Shapes: (H * W, B, 2h) in diagonal order -> hidden states (H * W, B, h), the sum of both directions.
    """

    flipped: Tensor
    shifted: Tensor

    def __init__(self, width: int, spec: Spec) -> None:
        super().__init__()
        self.height, self.columns, self.channels = spec.shape
        self.input = MaskedConv2d("B", 2 * width, 4 * width, 1, self.channels)
        self.mirror = nn.Linear(2 * width, 4 * width)  # unmasked, since it is shifted down
        self.state = nn.Parameter(torch.empty(2, 2, width, 4 * width))  # direction; tap left, above
        nn.init.uniform_(self.state, -((2 * width) ** -0.5), (2 * width) ** -0.5)
        self.initial = initial_state(width, 2)
        order = diagonal_order(self.height, self.columns)
        index = order.argsort().view(self.height, self.columns)  # of pixel (i, j) in diagonal order
        mirrored = index.flip(1)  # of pixel (i, j) of the mirror image
        self.register_buffer("flipped", mirrored.flatten()[order], persistent=False)
        # Shift down by a row: the first row takes appended zeros, and the last row is dropped.
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
        zeros = torch.zeros_like(initial[:, 0])  # states above the first row
        hidden = cell = zeros[:, :0]
        steps = []
        for t, gates in enumerate(z.split(sizes, dim=1)):
            # Diagonal t has the rows first ... last. Its left states are those of diagonal t - 1 in these
            # rows, and its states above are those in rows first - 1 ... last - 1: zeros in row -1. If row t
            # starts on this diagonal, its left state is the initial state.
            above = [zeros] if t < columns else []
            initial_hidden, initial_cell = ([initial[:, s]] if t < height else [] for s in range(2))
            previous = torch.cat([*above, hidden, *initial_hidden], dim=1)
            cell = torch.cat([cell if above else cell[:, 1:], *initial_cell], dim=1)
            sums = torch.baddbmm(
                gates.flatten(1, 2), previous[:, 1:].flatten(1, 2), self.state[:, 0]
            )
            sums = torch.baddbmm(sums, previous[:, :-1].flatten(1, 2), self.state[:, 1])
            new = lstm_cell(sums.flatten(0, 1), cell.flatten(0, 2), self.channels)
            hidden, cell = (s.unflatten(0, (2, -1, batch)) for s in new)
            steps.append(hidden)
        rightward, leftward = torch.cat(steps, dim=1)
        shifted = reorder(F.pad(leftward, (0, 0, 0, 0, 0, columns)), self.shifted)
        return rightward + shifted[: height * columns]


def diagonal_rows(t: int, height: int, columns: int) -> range:
    """The rows i whose pixel (i, t - i) is on diagonal t."""
    return range(max(0, t - columns + 1), min(t, height - 1) + 1)


def diagonal_order(height: int, columns: int) -> Tensor:
    """Raster positions of the pixels, diagonal by diagonal, (H * W,)."""
    steps = range(height + columns - 1)
    positions = [i * columns + t - i for t in steps for i in diagonal_rows(t, height, columns)]
    return torch.tensor(positions)


class Reorder(torch.autograd.Function):
    """x[order] for a permutation; its gradient permutes too, which is faster than indexing's scatter-add."""

    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return gradient.index_select(0, order.argsort()), None


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Rows of x in the order of a permutation."""
    return Reorder.apply(x, order)
