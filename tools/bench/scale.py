"""What runs of 1B and of 1T tokens would need, computed from rates that are measured here.

python -m tools.bench.scale
python -m tools.bench.scale --runs 1e9:50e6 1e12:1e9

Measured with one thread, as CPU time: training steps of two transformers (float32, AdamW), the encoding of the
sources of the Python standard library as byte pairs, the loading of a batch, and the writing of a checkpoint.
A run is TOKENS:PARAMETERS; training costs 6 floating-point operations per token and parameter, at the speed of the
larger transformer, and a document is taken to have 3,000 bytes, as in `tools.bench.corpus sizes`.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from arlm.checkpoints.describe import PREFIX, checksums
from arlm.core import Batch, Spec
from arlm.data.order import HELD
from arlm.inference.scorer import BatchScorer
from arlm.models.transformer import TransformerLanguageModel
from arlm.tokenizers import BPETokenizer
from datamodules.python_stdlib import PythonStdlib
from tools.bench.corpus import batches_of
from tools.bench.step import training_step
from tools.bench.timing import machine

ROW = 1024  # tokens of a row
DOCUMENT = 3000  # bytes
DAY = 86400.0


class Rates(NamedTuple):
    """What was measured, for one core."""

    flops: float  # of training, a second
    encoded: float  # bytes of text a second, as byte pairs
    bytes_per_token: float
    loaded: float  # tokens a second
    written: float  # bytes of a checkpoint a second


def least(function: Callable[[], object], repeats: int = 2) -> float:
    """The least CPU seconds of several runs."""
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        function()
        seconds.append(time.process_time() - started)
    return min(seconds)


def trained(
    name: str, spec: Spec, rows: int, width: int, depth: int
) -> tuple[TransformerLanguageModel, float]:
    """A transformer, and the floating-point operations of its training a second."""
    torch.manual_seed(0)
    net = TransformerLanguageModel(spec, width, depth, width // 64, tied=True)
    tokens = torch.randint(spec.vocab_size, (rows, spec.length))
    scored = torch.ones_like(tokens, dtype=torch.bool)
    batches = itertools.repeat(Batch(tokens, scored, scored.float()))
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    step = training_step(BatchScorer(net), batches, optimizer, bf16=False, clip=1.0)
    seconds = least(step, 3)
    size = sum(p.numel() for p in net.parameters())
    flops = 6 * size * tokens.numel() / seconds
    print(
        f"{name}: {size / 1e6:.1f} M parameters, {tokens.numel() / seconds:,.0f} tokens a CPU second, "
        f"{flops / 1e9:.0f} GFLOP/s",
        flush=True,
    )
    return net, flops


def write(path: Path, net: TransformerLanguageModel) -> None:
    """Checksums of the weights, and a file of them, as a checkpoint has them."""
    weights = {PREFIX + name: weight for name, weight in net.state_dict().items()}
    torch.save({"state_dict": weights, "checksums": checksums(weights)}, path)


def measured() -> Rates:
    """All rates of this machine."""
    trained("nanoGPT's size, 8 x 256", Spec(65, (256,)), 8, 384, 6)
    net, flops = trained("GPT-2's size, 1 x 1024", Spec(50257, (ROW,)), 1, 768, 12)
    text = "\n".join(PythonStdlib().files.values())[: 2**23]
    json_text = BPETokenizer.train([text[: 2**21]], 4096).json_text
    encoded = BPETokenizer(json_text).encode(text)
    seconds = least(lambda: BPETokenizer(json_text).encode(text))
    size = len(text.encode())
    with tempfile.TemporaryDirectory() as folder:
        _, loading, _, _ = batches_of(10**9, Path(folder) / "tokens", "windows", False)
        path = Path(folder) / "net.ckpt"
        spent = least(lambda: write(path, net))
        written = path.stat().st_size / spent
    loaded = 16 * 256 / (loading / 1e3)
    rates = Rates(flops, size / seconds, size / len(encoded), loaded, written)
    print(
        f"encoding {rates.encoded / 1e6:.1f} MB/s, {rates.bytes_per_token:.2f} bytes a token; loading "
        f"{rates.loaded / 1e6:.1f} M tokens/s; a checkpoint {rates.written / 1e6:.0f} MB/s",
        flush=True,
    )
    return rates


def size_of(number: float) -> str:
    """A number of bytes for people."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while number >= 1000 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return f"{number:,.3g} {units[0]}"


def needs(tokens: float, parameters: float, rates: Rates) -> dict[str, str]:
    """What one run needs."""
    text = tokens * rates.bytes_per_token
    documents, rows = text / DOCUMENT, tokens / ROW
    operations = 6 * parameters * tokens
    checkpoint = 12 * parameters  # weights and two moments
    held = 8 * rows if rows <= HELD else 0
    return {
        "text": size_of(text),
        "token file, 2 bytes a token": size_of(2 * tokens),
        "encoding, core-days": f"{text / rates.encoded / DAY:,.2f}",
        "blocks of 4 MiB, a file each until they are joined": f"{text / 2**22:,.0f}",
        "disk while they are joined": size_of(4 * tokens),
        "starts of documents while they are joined, as Python numbers": size_of(36 * documents),
        "order of rows, memory of a process": size_of(held),
        "starts of documents, memory of a process": size_of(8 * documents),
        "weights, gradients, AdamW": size_of(16 * parameters),
        "checkpoint": size_of(checkpoint),
        "writing a checkpoint, CPU seconds": f"{checkpoint / rates.written:,.1f}",
        "loading, core-days": f"{tokens / rates.loaded / DAY:,.3f}",
        "training, floating-point operations": f"{operations:.1e}",
        "training, core-days": f"{operations / rates.flops / DAY:,.0f}",
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--runs", nargs="+", default=["1e9:50e6", "1e12:1e9"])
    options = parser.parse_args()
    runs = [tuple(map(float, run.split(":"))) for run in options.runs]
    torch.set_num_threads(1)
    print(f"{machine()}, {torch.backends.cpu.get_cpu_capability()}")
    rates = measured()
    columns = [needs(tokens, parameters, rates) for tokens, parameters in runs]
    heads = [f"{tokens:.3g} tokens, {parameters:.3g} parameters" for tokens, parameters in runs]
    print(f"\n| | {' | '.join(heads)} |\n|---|{'---|' * len(runs)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")


if __name__ == "__main__":
    main()
