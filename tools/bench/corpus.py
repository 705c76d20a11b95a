"""Preparing and reading a corpus: speed against the tokenizers library, memory, and share of a training step.

python -m tools.bench.corpus speed
python -m tools.bench.corpus memory --gigabytes 5 --folder FOLDER
python -m tools.bench.corpus loading
python -m tools.bench.corpus sizes --megabytes 10 100 1000 10000 --folder FOLDER

`speed`: megabytes per second on one core of our encoding and of the library's batch encoding; the text is
the sources of the Python standard library, the byte pairs are trained on a part of it. `memory`: a
synthetic corpus is written, prepared and read in random windows; the resident size is printed at each
stage. `loading`: the time to load a batch of windows, against a training step of the demo's transformer.
`sizes`: CPU time of a training batch and memory of a process, for token files of several sizes; the files are
sparse, with a document every 3,000 bytes, and pages are read before they are timed: the disk's speed is left out.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import threading
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = (
    "false"  # one core for each; set before the library is imported
)

import numpy as np
import torch
from tokenizers import Tokenizer

from arlm.core import Spec
from arlm.data.continuous import ContinuousText
from arlm.data.corpus import Corpus, Piece, prepare
from arlm.data.corpus.token_file import CHUNK, TokenFile
from arlm.data.dataset import Rows
from arlm.data.order import BatchOrder, ResumableLoader
from arlm.data.windows import TextDataset, TextWindows
from arlm.domains import TextDomain
from arlm.models.transformer import TransformerLanguageModel
from arlm.tokenizers import BPETokenizer, ByteTokenizer
from datamodules.python_stdlib import PythonStdlib
from tools.bench.timing import interleaved, machine, median


def speed() -> None:
    """Encode about 10 MB on one core."""
    text = "\n".join(PythonStdlib().files.values())
    trained = BPETokenizer.train([text[: 2**21]], 4096)
    tokenizer = Tokenizer.from_str(trained.json_text)
    lines, blocks = text.splitlines(keepends=True), _split(text, 2**22)

    def ours() -> None:
        empty_cache = BPETokenizer(trained.json_text)
        for block in blocks:
            empty_cache.encode(block)

    byte = ByteTokenizer()
    timed = interleaved(
        {
            "tokenizers, encode_batch": lambda: tokenizer.encode_batch(lines),
            "tokenizers, encode_batch_fast": lambda: tokenizer.encode_batch_fast(lines),
            "arlm, byte pairs": ours,
            "arlm, bytes": lambda: [byte.encode(block) for block in blocks],
        },
        3,
    )
    first = median(next(iter(timed.values())))
    for name, seconds in timed.items():
        middle = median(seconds)
        size = len(text.encode()) / 1e6
        print(f"{name:30} {size / middle:8.2f} MB/s, {first / middle:.2f} times the first")


def _split(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


def resident() -> dict[str, int]:
    """Resident memory of this process in MB: in total (VmRSS) and by kind (Rss*)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return {name: int(value) // 1024 for name, value in found.items()} | {
        "VmRSS": sum(int(v) for v in found.values()) // 1024
    }


def memory(gigabytes: float, folder: Path) -> None:
    """Write, prepare and read a corpus that is too large to load into memory."""
    folder.mkdir(parents=True, exist_ok=True)
    file, noise = folder / "synthetic.txt", random.Random(0)
    words = ["".join(noise.choices("etaoinshrdlu", k=noise.randint(2, 9))) for _ in range(5000)]
    size = int(gigabytes * 1e9)
    if not file.exists() or file.stat().st_size < size:
        paragraphs = [(" ".join(noise.choices(words, k=200)) + "\n").encode() for _ in range(5000)]
        with file.open("wb") as out:
            while out.tell() < size:
                out.write(b"".join(noise.choices(paragraphs, k=1000)))
    print("before:", resident(), flush=True)
    started = time.perf_counter()
    domain = TextDomain(ByteTokenizer())
    corpus, _ = prepare([Piece(file, 0, size)], domain.tokenizer, folder / "prepared")
    seconds = time.perf_counter() - started
    print(
        f"prepared {len(corpus) / 1e9:.2f} G tokens, {size / seconds / 1e6:.0f} MB/s:", resident()
    )
    dataset = TextWindows(corpus, domain, 256)
    order = torch.randint(len(dataset), (20, 500, 16))
    for part in order:
        for rows in part:
            dataset[Rows(0, rows)]
        print(f"{part.numel()} more windows:", resident(), flush=True)


def loading() -> None:
    """Time to load a batch, against a training step."""
    length, rows = 128, 16
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / "arlm-bench"
    folder.mkdir(exist_ok=True)
    file = folder / "text"
    file.write_text("\n".join(PythonStdlib().files.values()))
    domain = TextDomain(ByteTokenizer())
    corpus, _ = prepare([Piece(file, 0, file.stat().st_size)], domain.tokenizer, folder)
    dataset = TextWindows(corpus, domain, length)
    net = TransformerLanguageModel(Spec(256, (length,)), width=128, depth=4)
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    chosen = torch.randint(len(dataset), (200, rows))

    def load() -> None:
        for part in chosen:
            dataset[Rows(0, part)]

    def train() -> None:
        batch = dataset[Rows(0, chosen[0])]
        for _ in range(10):
            with torch.autocast("cpu", torch.bfloat16):
                loss = -net.log_prob(batch.tokens).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    timed = interleaved({"load": load, "train": train}, 5)
    load_ms, train_ms = median(timed["load"]) / 200 * 1e3, median(timed["train"]) / 10 * 1e3
    print(f"a batch {load_ms:.3f} ms, a step {train_ms:.1f} ms: {load_ms / train_ms:.2%}")


def sizes(megabytes: list[float], folder: Path) -> None:
    """Cost of a batch and memory of a process, for corpora of several sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    print("a batch is 16 rows of 256 bytes; each line is a process of its own")
    for separate in (False, True):
        for batching in ("windows", "continuous"):
            documents = ", separate documents" if separate else ""
            for size in megabytes:
                given = int(size * 1e6), folder / "sparse.tokens", batching, separate
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    first, batch, held, most = pool.submit(batches_of, *given).result()
                print(
                    f"{batching + documents:30} {size:8,.0f} MB: first batch {first:6.2f} CPU s, then "
                    f"{batch:.3f} CPU ms a batch; memory +{held:,.0f} MB, peak +{most:,.0f} MB",
                    flush=True,
                )


def batches_of(
    size: int, file: Path, batching: str, separate: bool
) -> tuple[float, float, float, float]:
    """CPU seconds to the first batch and ms of a later one, MB of memory at the end and at the peak.

    Memory is that of this process beyond what it had before it opened the corpus, without pages of files.
    """
    torch.set_num_threads(1)
    with file.open("wb") as out:
        out.truncate(size)
    noise = np.random.default_rng(0)
    lengths = noise.integers(1000, 5000, size // 3000)
    documents = np.concatenate([[0], lengths.cumsum()[:-1]])
    documents = documents[documents < size]
    del lengths
    before, started = resident()["RssAnon"], time.process_time()
    with_peak = PeakMemory()
    crcs = np.zeros(-(-size // CHUNK), "<u4")
    crcs[:], crcs[-1] = zlib.crc32(bytes(CHUNK)), zlib.crc32(bytes(size % CHUNK or CHUNK))
    domain = TextDomain(ByteTokenizer())
    corpus = Corpus(TokenFile(file, "uint8", size, crcs, domain.vocab_size), documents)
    dataset: TextDataset
    if batching == "windows":
        dataset = TextWindows(corpus, domain, 256, separate_documents=separate)
    else:
        dataset = ContinuousText(corpus, domain, 256, 16, separate_documents=separate)
    order = BatchOrder(len(dataset), 16, True, streams=dataset.streams)
    for passes in range(2):  # of the same batches; the first one reads the pages of the file
        batches = iter(ResumableLoader(dataset, order))
        next(batches)
        if not passes:
            first = time.process_time() - started
        started = time.process_time()
        count = sum(1 for _ in itertools.islice(batches, 2000))
    each = (time.process_time() - started) / count * 1e3
    return first, each, resident()["RssAnon"] - before, with_peak.largest() - before


class PeakMemory:
    """The largest anonymous memory of this process, in MB, looked at a hundred times a second."""

    def __init__(self) -> None:
        self.most, self.running = 0, True
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self) -> None:
        while self.running:
            self.most = max(self.most, resident()["RssAnon"])
            time.sleep(0.01)

    def largest(self) -> int:
        """The largest so far; stops looking."""
        self.running = False
        self.thread.join()
        return max(self.most, resident()["RssAnon"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("what", choices=["speed", "memory", "loading", "sizes"])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[10.0, 100.0, 1000.0])
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--folder", type=Path, default=Path("corpus"))
    options = parser.parse_args()
    print(machine())
    if options.what == "memory":
        memory(options.gigabytes, options.folder)
    elif options.what == "sizes":
        sizes(options.megabytes, options.folder)
    else:
        {"speed": speed, "loading": loading}[options.what]()


if __name__ == "__main__":
    main()
