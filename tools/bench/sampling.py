"""Cached against naive sampling: same weights, same noise, the same tokens.

python -m tools.bench.sampling [--repeats 3] [--threads 1]

Naive is the interface's default `start`/`advance`: a forward pass on the prefix for every token (for
PixelCNN on the whole image, for the transformer on the tokens so far).
"""

from __future__ import annotations

import argparse

import torch

from arlm.core import Autoregressor, Spec
from arlm.models.lstm import LSTMLanguageModel
from arlm.models.pixelcnn import PixelCNN
from arlm.models.transformer import TransformerLanguageModel
from arlm.sampling import generate, row_seeds
from tools.bench.timing import interleaved, machine, median


class Naive(Autoregressor):
    """A network without its own `start` and `advance`."""

    def __init__(self, net: Autoregressor) -> None:
        super().__init__(net.spec)
        self.net = net

    def forward(self, tokens, context=None):
        return self.net(tokens, context)


def networks() -> dict[str, Autoregressor]:
    """The paper's MNIST PixelCNN, and 0.6 M parameter language models of 256 tokens."""
    torch.manual_seed(0)
    text = Spec(97, (256,))
    nets: dict[str, Autoregressor] = {
        "PixelCNN 15 x h16, 28x28": PixelCNN(Spec(2, (28, 28, 1))),
        "Transformer 3 x 128, 256 tokens": TransformerLanguageModel(text, depth=3),
        "LSTM 2 x 188, 256 tokens": LSTMLanguageModel(text, width=188),
    }
    for net in nets.values():
        for parameter in net.parameters():  # livelier than at initialisation, so that tokens matter
            parameter.data *= 1.5
        net.eval()
    return nets


def compare(net: Autoregressor, batch: int, repeats: int) -> tuple[float, float, int, bool]:
    """Median seconds of naive and of cached sampling, tokens drawn, and whether they are the same."""
    drawn: dict[str, torch.Tensor] = {}

    def sample(name: str, model: Autoregressor) -> None:
        drawn[name] = generate(model, row_seeds(0, batch)).tokens

    naive = Naive(net)
    seconds = interleaved(
        {"naive": lambda: sample("naive", naive), "cached": lambda: sample("cached", net)}, repeats
    )
    same = torch.equal(drawn["naive"], drawn["cached"])
    return median(seconds["naive"]), median(seconds["cached"]), drawn["cached"].numel(), same


def main() -> None:
    """Print one line for each network and batch size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(machine())
    print(f"{'':34}{'batch':>6}{'naive s':>10}{'cached s':>10}{'ratio':>8}{'tokens/s':>10}  same")
    for name, net in networks().items():
        for batch in (1, 16):
            slow, fast, tokens, same = compare(net, batch, options.repeats)
            figures = f"{slow:10.3f}{fast:10.4f}{slow / fast:8.1f}{tokens / fast:10.0f}  {same}"
            print(f"{name:34}{batch:6}{figures}", flush=True)


if __name__ == "__main__":
    main()
