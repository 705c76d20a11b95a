"""Test likelihood of PixelCNNs after equal training time, ours and pytorch-generative's, on binary MNIST.

python -m tools.bench.learning --peer FOLDER [--seconds 85] [--threads 2]

Width, depth, learning rate and batches are the same; the result is nats per image on the first 2,000 test
images. The peer adds its residual twice. FOLDER is a checkout of EugenHotaj/pytorch-generative; MNIST is read
from $ARLM_DATA_DIR.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.core import Batch
from arlm.data.dataset import Rows
from arlm.models.pixelcnn import PixelCNN
from datamodules.mnist import MNIST
from tools.bench.timing import machine


def batches(data: MNIST):
    """Training batches, epoch after epoch."""
    loader, epoch = data.loader("train"), 0
    while True:
        loader.order.set_epoch(epoch)
        yield from loader
        epoch += 1


def train(
    nats: Callable[[Tensor], Tensor], parameters, data: MNIST, seconds: float
) -> tuple[int, float]:
    """Number of training images, and test nats per image, after `seconds` of training."""
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    seen, started = 0, time.perf_counter()
    batch: Batch
    for batch in batches(data):
        loss = nats(batch.tokens).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen += len(batch.tokens)
        if time.perf_counter() - started > seconds:
            break
    with torch.no_grad():
        test = data.dataset("test")[Rows(0, torch.arange(2000))].tokens
        return seen, float(torch.cat([nats(part) for part in test.split(250)]).mean())


def main() -> None:
    """Print one line for each implementation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", required=True, help="a checkout of pytorch-generative")
    parser.add_argument("--seconds", type=float, default=85)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sys.path.insert(0, options.peer)
    from pytorch_generative import models  # type: ignore[import-not-found]

    torch.manual_seed(0)
    data = MNIST(batch_size=64)
    theirs, ours = models.PixelCNN(1, 1, 15, 16, 32), PixelCNN(data.spec)

    def their_nats(tokens: Tensor) -> Tensor:
        images = tokens.view(-1, 1, 28, 28).float()
        losses = F.binary_cross_entropy_with_logits(theirs(images), images, reduction="none")
        return losses.flatten(1).sum(1)

    print(machine(), f"| {options.seconds:.0f} s each, MNIST, dynamic binarisation")
    for name, nats, net in (
        ("arlm", lambda tokens: -ours.log_prob(tokens).sum(1), ours),
        ("pytorch-generative", their_nats, theirs),
    ):
        seen, figure = train(nats, list(net.parameters()), data, options.seconds)
        print(f"{name:20}{seen:7} images, test {figure:.1f} nats per image", flush=True)


if __name__ == "__main__":
    main()
