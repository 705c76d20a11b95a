"""Sampling speed and peak memory of this checkout against another one, such as the commit before.

python -m tools.bench.commits FOLDER [--threads 2] [--rounds 9] [--only GPT]

FOLDER is a checkout of arlm (`git worktree add FOLDER COMMIT`). Each workload runs in one process for each
checkout, in turn; `new / old` is the median of the ratios of neighbouring runs. `copies` is beam search of 80 rows,
which selects rows of the key-value cache at every step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tools.bench.timing import machine

ROOT = Path(__file__).resolve().parents[2]
# It runs in both checkouts, so it uses what both have.
WORKER = """
import resource, sys, time
import torch
from arlm.core import Spec
from arlm.models.pixelcnn import PixelCNN
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import beam_search, generate, row_seeds
from arlm.sampling.processors.top_k import TopK

torch.manual_seed(0)
torch.set_num_threads(int(sys.argv[2]))
name, batch = sys.argv[1].rsplit(" ", 1)
rows = int(batch)
text, image = Spec(256, (256,)), Spec(2, (28, 28, 1))
gpt = lambda: TransformerLanguageModel(text, width=384, depth=6, heads=6)
if name == "GPT 10M":
    net = gpt().eval(); run = lambda: generate(net, row_seeds(0, rows), 256)
elif name == "GPT 10M, top-k":
    net = gpt().eval(); run = lambda: generate(net, row_seeds(0, rows), 256, processors=[TopK(40)])
elif name == "GPT 10M, copies":
    net = gpt().eval(); run = lambda: beam_search(net, rows // 5, 96, beam=5, context=None)
elif name == "LSTM 2 x 650":
    net = LSTMLanguageModel(text, width=650).eval(); run = lambda: generate(net, row_seeds(0, rows), 256)
elif name == "LSTM 2 x 188":
    net = LSTMLanguageModel(text, width=188).eval(); run = lambda: generate(net, row_seeds(0, rows), 256)
else:
    net = PixelCNN(image).eval()
    options = {"processors": [TopK(2)]} if "top-k" in name else {}
    run = lambda: generate(net, row_seeds(0, rows), **options)
run()
for line in sys.stdin:
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, flush=True)
"""
WORKLOADS = [
    *("GPT 10M 1", "GPT 10M 16", "GPT 10M, top-k 1", "GPT 10M, top-k 16", "GPT 10M, copies 80"),
    *("LSTM 2 x 650 1", "LSTM 2 x 650 16", "LSTM 2 x 188 1", "LSTM 2 x 188 16"),
    *("PixelCNN 1", "PixelCNN 16", "PixelCNN, top-k 1", "PixelCNN, top-k 16"),
]


def worker(folder: Path, workload: str, threads: int) -> subprocess.Popen:
    """A process of a checkout that runs the workload for each line that it reads."""
    # Checkouts that choose the backend by the work time machine code, too; its start is not timed.
    environment = {"ARLM_NATIVE": "1"} | os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, workload, str(threads)],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def measure(process: subprocess.Popen) -> tuple[float, float]:
    """Seconds of one run, and the process's peak memory up to now in MB."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    seconds, memory = process.stdout.readline().split()
    return float(seconds), float(memory)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print(machine())
    print(
        f"{'workload, rows':22} {'old ms':>9} {'new ms':>9} {'new / old':>9} {'old MB':>8} {'new MB':>8}"
    )
    for workload in WORKLOADS:
        if options.only not in workload:
            continue
        pair = [
            worker(folder, workload, options.threads) for folder in (options.folder.resolve(), ROOT)
        ]
        found = [[measure(process) for process in pair] for _ in range(options.rounds)]
        for process in pair:
            process.kill()
        old, new = ([run[side][0] * 1000 for run in found] for side in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(old, new, strict=True))
        peaks = [max(run[side][1] for run in found) for side in (0, 1)]
        times = statistics.median(old), statistics.median(new)
        print(
            f"{workload:22} {times[0]:9.0f} {times[1]:9.0f} {ratio:9.3f} {peaks[0]:8.0f} {peaks[1]:8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
