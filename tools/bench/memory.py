"""Peak memory and CPU time of a training step: all logits or blocks of them, activations kept or computed again.

python -m tools.bench.memory
python -m tools.bench.memory --rows 4 --width 768 --depth 12 --heads 12

Each way runs in a process of its own, with one thread: `--steps` forward and backward passes of a transformer with
tied embeddings, in float32, without an optimizer. Printed are the peak resident memory, how much of it the passes
took (above weights and their gradients, which every way holds), the least CPU seconds of a step, and the norm of
the gradient, which is the same in every way.
"""

from __future__ import annotations

import argparse
import resource
import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from arlm.core import Spec
from arlm.layers.features import MAX_LOGITS
from arlm.models.transformer import TransformerLanguageModel
from tools.bench.timing import machine

WAYS: dict[str, dict[str, Any]] = {
    "all logits at once": {"max_logits": 2**62},
    "blocks of logits": {"max_logits": MAX_LOGITS},
    "blocks, activations again": {"max_logits": MAX_LOGITS, "activation_checkpointing": True},
}
Figures = tuple[float, float, float, float]


def peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measured(options: Namespace, way: str) -> Figures:
    """Peak MB, MB of the passes, CPU seconds of a step, and the norm of the gradient."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = TransformerLanguageModel(
        Spec(options.vocabulary, (options.length,)),
        *(options.width, options.depth, options.heads),
        dropout=options.dropout,
        tied=True,
        **WAYS[way],
    )
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
        parameter.grad.add_(0)  # its pages are in memory
    held, seconds = peak(), []
    tokens = torch.randint(options.vocabulary, (options.rows, options.length))
    for _ in range(options.steps):
        torch.manual_seed(1)
        net.zero_grad(set_to_none=False)
        started = time.process_time()
        (-net.score(tokens).log_prob.sum() / tokens.numel()).backward()
        seconds.append(time.process_time() - started)
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    return peak(), peak() - held, min(seconds), float(norm)


def alone(function: Callable[..., Figures], *arguments: object) -> Figures:
    """The result of a function in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    print(f"{machine()}, {torch.backends.cpu.get_cpu_capability()}; one thread in each process")
    print(
        f"V = {options.vocabulary}, {options.rows} x {options.length} tokens, "
        f"{options.depth} blocks of width {options.width}"
    )
    first = 0.0
    for way in WAYS:
        most, passes, seconds, norm = alone(measured, options, way)
        first = first or seconds
        print(
            f"{way:28} peak {most:7,.0f} MB, passes {passes:7,.0f} MB, {seconds:6.2f} CPU s a step "
            f"({seconds / first:.2f} of the first), gradient {norm:.6f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
