"""Sampling speed against the naive loop, which makes a full forward pass for every token, with equal weights.

python -m tools.bench.sampling [--batches 1 16 64] [--threads 2] [--only PixelCNN] [--peer FOLDER]

`naive` is the time of a forward pass multiplied by the number of tokens; for text it is the mean over
prefixes of 16 lengths. `torch` and `native` are complete samplings, `torch, p` and `native, p` with temperature 0.8 and
top-p 0.9; `gap` is the largest difference of a log-probability from that of a forward pass. FOLDER is a checkout of
EugenHotaj/pytorch-generative, whose own `sample` of the same PixelCNN is then timed against ours.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from arlm.core import Autoregressor, Spec
from arlm.models.gated_pixelcnn import GatedPixelCNN
from arlm.models.pixelcnn import PixelCNN
from arlm.models.pixelcnnpp import PixelCNNPlusPlus
from arlm.models.pixelrnn import DiagonalBiLSTM, RowLSTM
from arlm.models.pixelsnail import PixelSNAIL
from arlm.models.rnn import LSTMLanguageModel
from arlm.models.transformer import TransformerLanguageModel
from arlm.pixels.base import PixelNetwork
from arlm.programs.native_backend import INSTALLED
from arlm.sampling import generate, row_seeds
from arlm.sampling.processors.temperature import Temperature
from arlm.sampling.processors.top_p import TopP
from tools.bench.timing import interleaved, machine, median

IMAGE, TEXT = Spec(2, (28, 28, 1)), Spec(97, (256,))
NETWORKS: dict[str, Callable[[], Autoregressor]] = {
    "PixelCNN 15 x h16": lambda: PixelCNN(IMAGE),
    "PixelCNN 15 x h128": lambda: PixelCNN(IMAGE, width=128),
    "RowLSTM 7 x h16": lambda: RowLSTM(IMAGE),
    "DiagonalBiLSTM 7 x h16": lambda: DiagonalBiLSTM(IMAGE),
    "GatedPixelCNN 10 x 128": lambda: GatedPixelCNN(IMAGE, width=128, depth=10),
    "PixelCNNPlusPlus 5 x 40": lambda: PixelCNNPlusPlus(IMAGE, width=40),
    "PixelSNAIL 8 x 64": lambda: PixelSNAIL(IMAGE, mixtures=0),
    "ImageGPT 8 x 64": lambda: TransformerLanguageModel(IMAGE, 64, 8, 2),
    "Transformer 3 x 128, text": lambda: TransformerLanguageModel(TEXT, depth=3),
    "LSTM 2 x 188, text": lambda: LSTMLanguageModel(TEXT, width=188),
}

SHAPED = (Temperature(0.8), TopP(0.9))


def with_larger_weights(net: Autoregressor) -> Autoregressor:
    """Scale the initial weights up, so that the logits depend clearly on the tokens."""
    for parameter in net.parameters():
        parameter.data *= 1.3
    return net.eval()


def naive(net: Autoregressor, batch: int) -> float:
    """Seconds of the naive loop, one forward pass for every token; estimated from a few passes."""
    tokens = torch.zeros(batch, net.spec.length, dtype=torch.long)
    length = net.spec.length
    whole = isinstance(net, PixelNetwork)  # an image has a fixed size, a text grows
    lengths = [length] * 3 if whole else list(range(length // 16, length + 1, length // 16))
    with torch.inference_mode():
        net(tokens)
        seconds = []
        for length in lengths:
            started = time.perf_counter()
            net(tokens[:, :length])
            seconds.append(time.perf_counter() - started)
    return sum(seconds) / len(seconds) * net.spec.length


def compare(name: str, net: Autoregressor, batch: int, repeats: int) -> None:
    """Print one line for a network and batch size."""
    gaps: dict[str, float] = {}

    def sample(backend: str) -> None:
        os.environ["ARLM_NATIVE"] = "0" if backend.startswith("torch") else "1"
        processors = SHAPED if backend.endswith("p") else ()
        drawn = generate(net, row_seeds(0, batch), processors=processors)
        if backend not in gaps:
            with torch.inference_mode():
                rows = slice(min(batch, 4))
                exact = net.log_prob(drawn.tokens[rows]).double()
                gaps[backend] = float((exact - drawn.log_prob[rows]).abs().max())

    backends = ["torch", "torch, p"]
    if INSTALLED and isinstance(net, PixelNetwork):
        backends += ["native", "native, p"]
    slow = naive(net, batch)
    seconds = interleaved({name: partial(sample, name) for name in backends}, repeats)
    line = f"{name:26}{batch:4}{slow:10.2f}"
    for backend in backends:
        fast = median(seconds[backend])
        line += f"{fast:10.4f}{slow / fast:8.0f}x"
    print(line, f"   gap {max(gaps.values()):.0e}", flush=True)


def against_peer(folder: str, batches: list[int]) -> None:
    """Time pytorch-generative's own `sample` of its PixelCNN against ours."""
    sys.path.insert(0, folder)
    from pytorch_generative import models  # type: ignore[import-not-found]

    theirs = models.PixelCNN(1, 1, n_residual=15, residual_channels=16, head_channels=32).eval()
    theirs(torch.zeros(1, 1, 28, 28))
    ours = with_larger_weights(PixelCNN(IMAGE))
    print("\nagainst pytorch-generative's own sample(), PixelCNN 15 x h16")
    for batch in batches:
        seconds = interleaved(
            {
                "theirs": partial(theirs.sample, batch),
                "ours": partial(generate, ours, row_seeds(0, batch)),
            },
            1,
        )
        slow, fast = median(seconds["theirs"]), median(seconds["ours"])
        print(f"{batch:4} images: theirs {slow:.2f} s, ours {fast:.4f} s, {slow / fast:.0f}x")


def main() -> None:
    """Print one line for each network and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="networks whose name begins with this")
    parser.add_argument("--peer", help="a checkout of EugenHotaj/pytorch-generative")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(machine())
    print(
        f"{'seconds':26}{'n':>4}{'naive':>10}{'torch':>10}{'':9}{'torch, p':>10}{'':9}{'native':>10}{'':9}{'native, p':>10}"
    )
    for name, build in NETWORKS.items():
        if name.startswith(options.only):
            net = with_larger_weights(build())
            for batch in options.batches:
                compare(name, net, batch, options.repeats)
    if options.peer:
        against_peer(options.peer, options.batches[:2])


if __name__ == "__main__":
    main()
