"""What the choice of a backend (`arlm.programs.choice`) rests on, in CPU seconds of one thread.

python -m tools.bench.backends [--repeats 3] [--only PixelCNN]

First the start of machine code: processes that draw one tiny image with the torch backend, with compiled code that
is read from disk, and with an empty cache, in turn; their differences, and their ratios to `import torch`. Then
samplings of images of 28 x 28 with both backends in turn: what machine code saved, beside the estimate; and the
constants of `choice` that fit these samplings best (least squares of relative errors).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from arlm.pixels.base import PixelNetwork
from arlm.programs.choice import Work, work_of
from arlm.programs.native_backend import MIN_LANES, SIMD_WIDTH
from arlm.sampling import generate, row_seeds
from tools.bench.sampling import NETWORKS, with_larger_weights
from tools.bench.timing import cpu_of, machine, median

MOST = 3e10  # multiplications of a batch
TINY = """
import torch
from arlm.core import Spec
from arlm.models.pixelcnn import PixelCNN
from arlm.sampling import generate
generate(PixelCNN(Spec(2, (2, 2, 1)), width=2, depth=1, head_width=2), range(1))
"""


def start(repeats: int) -> None:
    """Print the seconds that machine code takes to start."""
    found: dict[str, list[float]] = {"torch": [], "read": [], "compile": []}
    with tempfile.TemporaryDirectory() as folder:
        read = str(Path(folder, "read"))
        cpu_of(["-c", TINY], ARLM_NATIVE="1", NUMBA_CACHE_DIR=read)
        for turn in range(repeats):
            empty = str(Path(folder, f"empty{turn}"))
            floor = cpu_of(["-c", "import torch"])
            base = cpu_of(["-c", TINY], ARLM_NATIVE="0")
            for name, cache in (("read", read), ("compile", empty)):
                found[name].append(
                    cpu_of(["-c", TINY], ARLM_NATIVE="1", NUMBA_CACHE_DIR=cache) - base
                )
            found["torch"].append(floor)
    print(f"import torch {median(found['torch']):.2f} s")
    for name in ("read", "compile"):
        ratio = median([a / b for a, b in zip(found[name], found["torch"], strict=True)])
        print(f"{name:8} {median(found[name]):5.2f} s more, {ratio:.2f} of import torch")


def sampled(net: PixelNetwork, images: int, repeats: int) -> list[float]:
    """CPU seconds of a sampling with torch, and with machine code; the median after a warm-up."""
    seconds: dict[str, list[float]] = {"0": [], "1": []}
    for turn in range(repeats + 1):
        for setting, found in seconds.items():
            os.environ["ARLM_NATIVE"] = setting
            started = time.process_time()
            generate(net, row_seeds(0, images))
            if turn:
                found.append(time.process_time() - started)
    return [median(found) for found in seconds.values()]


def fitted(works: list[Work], seconds: list[list[float]]) -> dict[str, float]:
    """The constants of `arlm.programs.choice` that fit the measured seconds best."""
    calls, products, images = np.array(works).T
    torch_seconds, native_seconds = np.array(seconds).T
    lanes = np.ceil(images / SIMD_WIDTH) * SIMD_WIDTH
    alone = images < MIN_LANES

    def solve(columns: list[np.ndarray], y: np.ndarray) -> list[float]:
        scaled = np.stack(columns, 1) / y[:, None]
        return np.linalg.lstsq(scaled, np.ones(len(y)))[0].tolist()

    torch_columns = [calls, products, products * images]
    found = dict(zip(("CALL", "WEIGHT", "TORCH"), solve(torch_columns, torch_seconds), strict=True))
    for name, rows, count in (("ALONE", alone, images), ("SIDE_BY_SIDE", ~alone, lanes)):
        found[name] = solve([(products * count)[rows]], native_seconds[rows])[0]
    return found


def main() -> None:
    """Print the start, a line for each network and batch size, and the fitted constants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="networks whose name begins with this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(machine())
    start(options.repeats)
    print(f"{'CPU seconds':26}{'n':>4}{'torch':>9}{'native':>9}{'saved':>9}{'estimate':>9}")
    works, seconds = [], []
    for name, build in NETWORKS.items():
        net = build()
        if not name.startswith(options.only) or not isinstance(net, PixelNetwork):
            continue
        net = with_larger_weights(net)
        assert isinstance(net, PixelNetwork)
        program = net.program()
        for images in options.batches:
            work = work_of(program, images, net.spec.length)
            if work.products * images > MOST:
                continue
            slow, fast = sampled(net, images, options.repeats)
            works.append(work)
            seconds.append([slow, fast])
            line = f"{name:26}{images:4}{slow:9.3f}{fast:9.3f}{slow - fast:9.3f}"
            print(f"{line}{work.saved:9.3f}", flush=True)
    print(*(f"{name} {value:.1e}" for name, value in fitted(works, seconds).items()), sep=", ")


if __name__ == "__main__":
    main()
