"""Attention on a CPU: explicit operations against the fused kernel, in training and in decoding.

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


@torch.inference_mode()
def compare_decoding(rows: int, length: int, repeats: int) -> tuple[float, float]:
    """Median seconds of 100 steps of one query for each row, fused and as two batched products."""
    q = torch.randn(rows, 4, 1, 32)
    k, v = (torch.randn(rows, 4, length, 32) for _ in range(2))
    bias = torch.zeros(1, 1, 1, length)

    def products() -> Tensor:
        return (q @ k.mT * 32**-0.5 + bias).softmax(-1) @ v

    def kernel() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    def steps(attend: Callable[[], Tensor]) -> None:
        for _ in range(100):
            attend()

    seconds = interleaved(
        {"fused": lambda: steps(kernel), "products": lambda: steps(products)}, repeats
    )
    return median(seconds["fused"]), median(seconds["products"])


def main() -> None:
    """Print the ratios: training by length, in float32 and bfloat16; decoding by rows and length."""
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
    for rows in (1, 16, 80):
        for length in (64, 256):
            kernel, products = compare_decoding(rows, length, options.repeats)
            print(
                f"decoding, {rows:2} rows, T {length:4}: fused {kernel * 1e4:7.1f} us, "
                f"two products {products * 1e4:7.1f} us a step, ratio {kernel / products:.2f}"
            )


if __name__ == "__main__":
    main()
