"""The position-wise network of a transformer block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """out(f(hidden(x))); f is ReLU, GELU (exact or with tanh), or SwiGLU: silu(a) * b of two halves.

    References:
        | GLU Variants Improve Transformer (Shazeer, 2020) | https://arxiv.org/abs/2002.05202
    """

    def __init__(self, width: int, hidden: int, kind: str, bias: bool = True) -> None:
        super().__init__()
        self.kind = kind
        self.hidden = nn.Linear(width, 2 * hidden if kind == "swiglu" else hidden, bias=bias)
        self.out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden(x)
        if self.kind == "swiglu":
            gate, value = x.chunk(2, dim=-1)
            return self.out(F.silu(gate) * value)
        if self.kind == "relu":
            return self.out(F.relu(x))
        return self.out(F.gelu(x, approximate="tanh" if self.kind == "gelu_tanh" else "none"))
