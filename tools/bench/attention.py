"""Attention in training on a CPU: explicit operations against the fused kernel, forward and backward.

python -m tools.bench.attention [--threads 2] [--repeats 9]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.layers import attention
from tools.bench.timing import interleaved, machine, median


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's fused kernel."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def compare(dtype: torch.dtype, length: int, repeats: int) -> tuple[float, float]:
    """Median seconds of forward and backward, fused and explicit."""
    shape = (4096 // length, 4, length, 32)
    inputs = [torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3)]

    def train(attend: Callable[..., Tensor]) -> None:
        attend(*inputs).sum().backward()

    seconds = interleaved(
        {"fused": lambda: train(fused), "explicit": lambda: train(attention.explicit_attention)},
        repeats,
    )
    return median(seconds["fused"]), median(seconds["explicit"])


def main() -> None:
    """Print the ratio for several lengths, in float32 and bfloat16."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine(), "| 4096 tokens, 4 heads of 32")
    for dtype in (torch.float32, torch.bfloat16):
        for length in (64, 128, 256, 512):
            kernel, explicit = compare(dtype, length, options.repeats)
            print(
                f"{dtype!s:15} T {length:4}: fused {kernel * 1e3:6.1f} ms, "
                f"explicit {explicit * 1e3:6.1f} ms, ratio {kernel / explicit:.2f}"
            )


if __name__ == "__main__":
    main()
