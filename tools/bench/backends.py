"""What the choice of a backend (`arlm.programs.choice`) rests on, in CPU seconds of one thread.

python -m tools.bench.backends [--repeats 3] [--only PixelCNN]

First the start of machine code: processes that draw one tiny image with the torch backend, with compiled code that
is read from disk, and with an empty cache, in turn; their differences, and their ratios to `import torch`. Then
samplings of images of 28 x 28 with both backends in turn: what machine code saved, beside the estimate that the
choice makes from the constants of `choice`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

from arlm.pixels.base import PixelNetwork
from arlm.programs.choice import work_of
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


def main() -> None:
    """Print the start, then a line for each network and batch size."""
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
            line = f"{name:26}{images:4}{slow:9.3f}{fast:9.3f}{slow - fast:9.3f}"
            print(f"{line}{work.saved:9.3f}", flush=True)


if __name__ == "__main__":
    main()
