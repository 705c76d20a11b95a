"""Training speed in images per second, against pytorch-generative and against a matrix product.

python -m tools.bench.training --peer FOLDER [--batch 64] [--threads 2]

Forward, backward and Adam on 28x28 binary images, at the sizes of the peer's README, in turn with the peer in
one run. The peer has no correct Row LSTM and Diagonal BiLSTM; these are compared with the speed of a
1024 x 1024 matrix product. FOLDER is a checkout of EugenHotaj/pytorch-generative; without it the peer is
omitted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from arlm.core import Autoregressor, Spec
from arlm.models.gated_pixelcnn import GatedPixelCNN
from arlm.models.pixelcnn import PixelCNN
from arlm.models.pixelcnnpp import PixelCNNPlusPlus
from arlm.models.pixelrnn import DiagonalBiLSTM, RowLSTM
from arlm.models.pixelsnail import PixelSNAIL
from arlm.models.transformer import TransformerLanguageModel
from tools.bench.timing import interleaved, machine, median

SPEC = Spec(2, (28, 28, 1))
OURS: dict[str, Callable[[], Autoregressor]] = {
    "PixelCNN": lambda: PixelCNN(SPEC),
    "GatedPixelCNN": lambda: GatedPixelCNN(SPEC, width=128, depth=10),
    "PixelSNAIL": lambda: PixelSNAIL(SPEC, mixtures=0),
    "ImageGPT": lambda: TransformerLanguageModel(SPEC, 64, 8, 2, "learned"),
    "RowLSTM": lambda: RowLSTM(SPEC),
    "DiagonalBiLSTM": lambda: DiagonalBiLSTM(SPEC),
    "PixelCNNPlusPlus": lambda: PixelCNNPlusPlus(SPEC, width=40, mixtures=0, dropout=0.0),
}
THEIRS = {
    "PixelCNN": (1, 1, 15, 16, 32),
    "GatedPixelCNN": (1, 1, 10, 128, 32),
    "PixelSNAIL": (1, 1, 64, 8, 2, 4, 32),
    "ImageGPT": (1, 1, 28, 8, 2, 64),
}


def our_step(net: Autoregressor, tokens: torch.Tensor, half: bool) -> Callable[[], None]:
    """A training step of a network of arlm."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = -net.log_prob(tokens).sum() / tokens.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def their_step(net: torch.nn.Module, tokens: torch.Tensor) -> Callable[[], None]:
    """A training step of pytorch-generative, with its own loss."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    images = tokens.view(-1, 1, 28, 28).float()

    def step() -> None:
        loss = F.binary_cross_entropy_with_logits(net(images), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    """Print one line for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="a checkout of EugenHotaj/pytorch-generative")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="networks whose name begins with this")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokens = torch.randint(2, (options.batch, 784))
    square = torch.randn(1024, 1024)
    peer: Any = None
    if options.peer:
        sys.path.insert(0, options.peer)
        peer = importlib.import_module("pytorch_generative.models")
    print(machine(), f"| images/s, batch {options.batch}, 28x28 binary")
    for name, build in OURS.items():
        if not name.startswith(options.only):
            continue
        actions: dict[str, Callable[[], object]] = {
            "float32": our_step(build(), tokens, half=False),
            "bf16": our_step(build(), tokens, half=True),
            "matmul": lambda: [square @ square for _ in range(20)],
        }
        if peer and name in THEIRS:
            actions["peer"] = their_step(getattr(peer, name)(*THEIRS[name]), tokens)
        seconds = {action: median(s) for action, s in interleaved(actions, options.repeats).items()}
        speed = {action: options.batch / s for action, s in seconds.items()}
        product = 20 * 2 * 1024**3 / seconds["matmul"] / 1e9
        line = f"{name:18} float32 {speed['float32']:7.1f}  bf16 {speed['bf16']:7.1f}"
        if "peer" in speed:
            line += f"  peer {speed['peer']:7.1f}: {speed['float32'] / speed['peer']:.2f}x"
            line += f" and {speed['bf16'] / speed['peer']:.2f}x"
        scaled = [speed[action] * 215 / product for action in ("float32", "bf16")]
        line += f"  matmul {product:.0f} GFLOP/s (at 215: {scaled[0]:.0f} and {scaled[1]:.0f})"
        print(line, flush=True)


if __name__ == "__main__":
    main()
