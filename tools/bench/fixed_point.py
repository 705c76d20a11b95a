"""Fixed-point decoding against token-by-token decoding: passes and seconds, on trained checkpoints.

python -m tools.bench.fixed_point CKPT ... [--batch 16] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from arlm import load
from arlm.sampling import fixed_point, generate, row_seeds
from arlm.sampling.generate import class_labels
from tools.bench.timing import interleaved, machine, median


def main() -> None:
    """Print one line for each checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="+", help=".ckpt files or folders of runs")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ.setdefault("ARLM_NATIVE", "1")  # where it can run; the start is not timed
    print(machine(), f"| {options.batch} rows")
    for path in options.checkpoints:
        net = load(path).net
        seeds = row_seeds(0, options.batch)
        given: dict[str, Any] = {"context": class_labels(net, None, options.batch)}
        steps, fixed = generate(net, seeds, **given), fixed_point(net, seeds, **given)
        actions: dict[str, Callable[[], object]] = {
            "fixed point": partial(fixed_point, net, seeds, **given),
            "steps": partial(generate, net, seeds, **given),
        }
        seconds = interleaved(actions, options.repeats)
        equal_rows = (steps.tokens == fixed.tokens).all(1).float().mean()
        print(
            f"{type(net).__name__:26}{net.spec.length:5} tokens in {fixed.passes:4} passes, "
            f"{median(seconds['fixed point']):.3f} s; step by step {median(seconds['steps']):.3f} s; "
            f"{100 * equal_rows:.0f} % of rows the same",
            flush=True,
        )


if __name__ == "__main__":
    main()
