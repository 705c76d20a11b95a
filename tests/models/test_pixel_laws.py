"""The laws catch the faults that public code for pixels really has."""

from __future__ import annotations

from collections.abc import Callable

import laws
import pytest
import torch
from torch import Tensor

from arlm.layers.image_lstm import diagonal_order
from arlm.layers.masked_conv import MaskedConv2d
from arlm.models import pixelsnail
from arlm.models.gated_pixelcnn import GatedPixelCNN
from arlm.models.pixelcnn import PixelCNN
from arlm.models.pixelcnnpp import PixelCNNPlusPlus
from arlm.models.pixelrnn import DiagonalBiLSTM, RowLSTM
from arlm.models.pixelsnail import PixelSNAIL


def positions(net: DiagonalBiLSTM, mirrored: bool) -> Tensor:
    """Index in diagonal order of each pixel (i, j) of the image, or of its mirror image, (H, W)."""
    height, width, _ = net.spec.shape
    index = diagonal_order(height, width).argsort().view(height, width)
    return index.flip(1) if mirrored else index


class NoShift(DiagonalBiLSTM):
    """Zeros are appended at the bottom: the right-to-left half is not shifted at all."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        for layer in self.layers:
            zeros = spec.shape[0] * spec.shape[1] + torch.arange(spec.shape[1])
            layer.shifted = torch.cat([positions(self, True).flatten()[self.order], zeros])


class NotFlippedBack(DiagonalBiLSTM):
    """The right-to-left map stays mirrored when it is added."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments | {"depth": 1})  # two layers make up for it
        zeros = spec.shape[0] * spec.shape[1] + torch.arange(spec.shape[1])
        source = torch.cat([zeros, positions(self, False)[:-1].flatten()])[self.order]
        for layer in self.layers:
            layer.shifted = torch.cat([source, positions(self, False)[-1]])


class PaperDiagonal(DiagonalBiLSTM):
    """Claims to see all earlier pixels, but does not see the last pixel of the row above."""

    def forward(self, tokens, context=None):
        with torch.no_grad():
            self.last.weight.zero_()
        return super().forward(tokens, context)


class WrongView(RowLSTM):
    """States of (width, hidden) are viewed as (hidden, width)."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        height, width, _ = spec.shape

        def mixed(layer, inputs, states: Tensor) -> Tensor:
            rows = states.unflatten(0, (height, width))
            return rows.movedim(1, 3).reshape(rows.shape).flatten(0, 1)

        for layer in self.layers:
            layer.register_forward_hook(mixed)


class PaddedBelow(PixelSNAIL):
    """A SAME-padded kernel of two rows: the zeros go below, and the row below is seen."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        for block in self.blocks:
            for layer in block.residuals:
                layer.first.pads = (1, 0, 0, 1)


class UniformRow(PixelSNAIL):
    """-1e10 for what is hidden: the first pixel, which sees nothing, attends to the whole image."""

    def forward(self, tokens, context=None):
        def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            hidden = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu()
            return (q @ k.mT).masked_fill(hidden, -1e10).softmax(-1) @ v

        kept = pixelsnail.strictly_causal_attention
        pixelsnail.strictly_causal_attention = attention
        try:
            return super().forward(tokens, context)
        finally:
            pixelsnail.strictly_causal_attention = kept


class MaskATwice(PixelCNN):
    """Mask A after the first layer too: a pixel does not see what it knows."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        for block in self.blocks:
            block.down = MaskedConv2d("A", 2 * self.width, self.width, 1, spec.shape[2])


class SeeingChannels(RowLSTM):
    """R, G and B of a pixel see one another on the way into the LSTM."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        for layer in self.layers:
            layer.input.mask.fill_(1)
            layer.input.full = True


class UnshiftedStream(PixelCNNPlusPlus):
    """The stream above is not shifted down: it sees the pixel's own row, and what is right of it."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        self.above_start.pads = (1, 1, 0, 1)


class IndependentChannels(PixelCNNPlusPlus):
    """G and B ignore the channels before them."""

    def forward(self, tokens, context=None):
        values = self._pixels
        self._pixels = lambda *given: (values(*given)[0], values(*given)[1] * 0)
        try:
            return super().forward(tokens, context)
        finally:
            del self._pixels


class LateVertical(GatedPixelCNN):
    """The vertical stack sees the pixel's own row from the first layer on."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        self.layers[0].rows -= 1


class StaleRow(GatedPixelCNN):
    """The vertical stack is not computed for the first row."""

    def build_program(self, program):
        super().build_program(program)
        program.stages[:] = [stage._replace(after=1) for stage in program.stages]


class ForgottenLabel(PixelCNN):
    """Sampling leaves the label out."""

    def start(self, batch, length, context=None):
        return super().start(batch, length, torch.zeros_like(context))


class MixedLabels(PixelCNN):
    """The labels of a batch are given to all of its rows."""

    def forward(self, tokens, context=None):
        return super().forward(tokens, context) + super().forward(tokens, context.flip(0))


class RoundedLevels(PixelCNN):
    """Intensities are a plain float32 buffer, which keeps its rounding in float64."""

    def __init__(self, spec, **arguments):
        super().__init__(spec, **arguments)
        self.embed.constants = lambda dtype: {}


class HalfEmbedded(PixelCNN):
    """The embedding sees half of each row at a time."""

    def image(self, tokens):
        halves = tokens.chunk(2, dim=1)
        joined = torch.cat([self.embed(half) for half in halves], dim=1)
        height, width, channels = self.spec.shape
        values = torch.nn.functional.pad(joined, (0, self.spec.length - tokens.shape[1]))
        return values.view(-1, height, width, channels).permute(0, 3, 1, 2)


MUTANTS = [
    (RoundedLevels, "grey", laws.law_exact_constants),
    (HalfEmbedded, "grey", laws.law_causal_by_gradient),
    (NoShift, "grey", laws.law_causal_by_perturbation),
    (NoShift, "rgb", laws.law_causal_by_gradient),
    (NotFlippedBack, "grey", laws.law_causal_by_perturbation),
    (PaperDiagonal, "grey", laws.law_causal_by_gradient),
    (WrongView, "grey", laws.law_causal_by_perturbation),
    (PaddedBelow, "grey", laws.law_causal_by_perturbation),
    (UniformRow, "grey", laws.law_causal_by_perturbation),
    (MaskATwice, "grey", laws.law_causal_by_gradient),
    (SeeingChannels, "rgb", laws.law_causal_by_perturbation),
    (UnshiftedStream, "grey", laws.law_causal_by_perturbation),
    (IndependentChannels, "rgb", laws.law_causal_by_gradient),
    (LateVertical, "grey", laws.law_causal_by_perturbation),
    (StaleRow, "grey", laws.law_incremental_is_parallel),
    (ForgottenLabel, "grey+label", laws.law_incremental_is_parallel),
    (MixedLabels, "grey+label", laws.law_conditional),
]


@pytest.mark.parametrize(
    ("mutant", "data", "law"), MUTANTS, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_law_catches(mutant: type, data: str, law: Callable) -> None:
    laws.assert_caught(mutant, data, law)
