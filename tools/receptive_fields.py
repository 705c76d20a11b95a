"""Draw the receptive field of each pixel network, measured by the gradient: docs/receptive_fields.png.

python -m tools.receptive_fields [--out docs/receptive_fields.png]

For one pixel (white), the magnitude of d logits / d x for every other pixel x, on a logarithmic scale,
averaged over random weights and images; black is exactly zero.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from arlm.core import Autoregressor, Spec
from arlm.models.gated_pixelcnn import GatedPixelCNN
from arlm.models.pixelcnn import PixelCNN
from arlm.models.pixelcnnpp import PixelCNNPlusPlus
from arlm.models.pixelrnn import DiagonalBiLSTM, RowLSTM
from arlm.models.pixelsnail import PixelSNAIL
from arlm.models.transformer import TransformerLanguageModel
from arlm.reports.files import check_writable

SIZE, PIXEL = 19, (12, 9)
SPEC = Spec(4, (SIZE, SIZE, 1))
NETWORKS: dict[str, Callable[[], Autoregressor]] = {
    "PixelCNN, 4 blocks": lambda: PixelCNN(SPEC, width=8, depth=4),
    "Row LSTM": lambda: RowLSTM(SPEC, width=8, depth=3),
    "Diagonal BiLSTM, the paper's": lambda: DiagonalBiLSTM(SPEC, 8, 3, complete=False),
    "Diagonal BiLSTM, complete": lambda: DiagonalBiLSTM(SPEC, 8, 3),
    "Gated PixelCNN, 6 layers": lambda: GatedPixelCNN(SPEC, width=8, depth=6),
    "PixelCNN++, depth 2": lambda: PixelCNNPlusPlus(SPEC, 8, 2, mixtures=0, dropout=0.0),
    "PixelSNAIL, 2 blocks": lambda: PixelSNAIL(SPEC, 8, 2, value_width=8, mixtures=0),
    "ImageGPT, 2 blocks": lambda: TransformerLanguageModel(SPEC, 16, 2, 2),
}


def receptive_field(net: Autoregressor) -> Tensor:
    """Summed magnitude of the gradient of one pixel's logits with respect to every pixel, (SIZE, SIZE)."""
    kept: list[Tensor] = []

    def keep(module, arguments, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    handle = net.embed.register_forward_hook(keep)
    logits = net(torch.randint(4, (8, SIZE * SIZE)))
    handle.remove()
    weights = torch.randn(4, dtype=logits.dtype)
    (logits[:, PIXEL[0] * SIZE + PIXEL[1]] @ weights).sum().backward()
    gradients = [k.grad.abs().sum(0) for k in kept if k.grad is not None]
    return torch.stack(gradients).sum(0).view(SIZE, SIZE, -1).sum(2)


def main() -> None:
    """Draw one panel for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/receptive_fields.png"))
    options = parser.parse_args()
    check_writable(options.out)
    torch.manual_seed(0)
    figure, axes = plt.subplots(2, 4, figsize=(10, 5.4))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, build) in zip(axes.flat, NETWORKS.items(), strict=False):
        field = torch.stack([receptive_field(build().double()) for _ in range(4)]).mean(0)
        shown = torch.where(field > 0, field.clamp(min=1e-30).log10(), -torch.inf)
        lowest = shown[field > 0].min()
        # Only zero is black: the smallest gradient is a third of the way up the colour scale.
        shown = torch.where(field > 0, 0.35 + 0.65 * (shown - lowest) / -lowest.clamp(max=-1), 0)
        shown[PIXEL] = 0
        axis.imshow(shown, cmap="inferno", vmin=0, vmax=max(1.0, float(shown.max())))
        axis.plot(PIXEL[1], PIXEL[0], "s", color="white", markersize=5)
        axis.set_title(name, fontsize=9)
    figure.tight_layout()
    figure.savefig(options.out, dpi=90)
    print(options.out)


if __name__ == "__main__":
    main()
