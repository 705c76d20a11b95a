"""Discretised mixture of logistics: the levels of a pixel's channels as slices of smooth densities.

References:
    | PixelCNN++ (Salimans, Karpathy, Chen, Kingma, 2017), sections 2.1-2.2
    | https://arxiv.org/abs/1701.05517
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from arlm.core import Spec, token_log_prob
from arlm.errors import UserError, require
from arlm.pixels.base import PixelNetwork
from arlm.programs.program import Program

LOG_SCALES = (-7.0, 7.0)  # beyond these a logistic is a spike or flat


def parameter_count(mixtures: int, channels: int) -> int:
    """Numbers a pixel needs: weights, means and scales, and how each channel's mean follows earlier ones."""
    return mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)


class Mixture(NamedTuple):
    """K logistics for each of C channels, which share their weights."""

    log_weight: Tensor  # (..., K)
    mean: Tensor  # (..., C, K), before what earlier channels add
    log_scale: Tensor  # (..., C, K)
    slope: Tensor  # (..., C (C - 1) / 2, K), in (-1, 1): G from R, B from R, B from G

    @classmethod
    def read(cls, numbers: Tensor, channels: int) -> Mixture:
        """From a network's output (..., `parameter_count`), in float32 or better."""
        numbers = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
        slopes = channels * (channels - 1) // 2
        whole = numbers.unflatten(-1, (1 + 2 * channels + slopes, -1))
        weight, mean, scale, slope = whole.split([1, channels, channels, slopes], dim=-2)
        return cls(
            weight.squeeze(-2).log_softmax(-1),
            mean,
            scale.clamp(*LOG_SCALES),
            slope.tanh(),
        )

    def mean_of(self, channel: int, values: Tensor) -> Tensor:
        """Mean of a channel (..., K), given the intensities (..., C) of those before it."""
        first = channel * (channel - 1) // 2
        slopes = self.slope[..., first : first + channel, :]
        return self.mean[..., channel, :] + (slopes * values[..., :channel, None]).sum(-2)

    def log_mass(self, channel: int, mean: Tensor, value: Tensor, levels: int) -> Tensor:
        """log P(channel = value) under each logistic: its density's share between two half steps.

        sigmoid(p) - sigmoid(m) = sigmoid(p) sigmoid(-m) (1 - exp(m - p)) keeps all digits in the tails.

        Args:
            mean: (..., K).
            value: (..., 1) intensities in [-1, 1]; the outermost levels take the tails.
            levels: V.

        Returns: (..., K).
        """
        half = 1 / (levels - 1)
        log_scale = self.log_scale[..., channel, :]
        precise = torch.exp(-log_scale)
        above, below = (value + half - mean) * precise, (value - half - mean) * precise
        lowest, highest = value < half - 1, value > 1 - half
        slice_ = torch.log(-torch.expm1(-2 * half * precise))
        return (
            torch.where(highest, 0.0, F.logsigmoid(above))
            + torch.where(lowest, 0.0, F.logsigmoid(-below))
            + torch.where(lowest | highest, 0.0, slice_)
        )

    def log_prob(self, values: Tensor, levels: int) -> Tensor:
        """log P of each channel given those before it, (..., C), without a table of all levels."""
        weight, scores = self.log_weight, []
        for channel in range(values.shape[-1]):
            mean = self.mean_of(channel, values)
            joint = weight + self.log_mass(channel, mean, values[..., channel, None], levels)
            score = joint.logsumexp(-1, keepdim=True)
            scores.append(score)
            weight = joint - score
        return torch.cat(scores, dim=-1)

    def logits(self, channel: int, values: Tensor, levels: Tensor) -> Tensor:
        """log P of all levels of one channel, (..., V), given the intensities of those before it.

        Args:
            levels: (V,) intensities.
        """
        weight = self.log_weight
        for earlier in range(channel):
            mean = self.mean_of(earlier, values)
            joint = weight + self.log_mass(earlier, mean, values[..., earlier, None], len(levels))
            weight = joint.log_softmax(-1)
        mean = self.mean_of(channel, values)
        table = Mixture(self.log_weight, self.mean, self.log_scale[..., None, :, :], self.slope)
        mass = table.log_mass(channel, mean[..., None, :], levels[:, None], len(levels))
        return (weight[..., None, :] + mass).logsumexp(-1)


class MixturePixelNetwork(PixelNetwork):
    """A network that scores a pixel's channels together, by a mixture of logistics.

    With `mixtures` 0 it scores one channel by a softmax over V levels instead. A subclass writes
    `features`, with `outputs` maps.
    """

    mixtures: int

    def __init__(self, spec: Spec, mixtures: int) -> None:
        super().__init__(spec, grouped=False)
        require(mixtures >= 0, "model.net.mixtures", mixtures, "choose 0 for a softmax, or more")
        if not mixtures and spec.shape[2] > 1:
            raise UserError(
                f"model.net.mixtures: 0 is a softmax for one channel, and the data has "
                f"{spec.shape[2]}; choose 10"
            )
        self.mixtures, self.logits_in_program = mixtures, not mixtures

    @property
    def outputs(self) -> int:
        """Feature maps that a mixture, or the softmax, is read from."""
        channels = self.spec.shape[2]
        return parameter_count(self.mixtures, channels) if self.mixtures else self.spec.vocab_size

    @abstractmethod
    def features(self, image: Tensor, context: Tensor | None) -> Tensor:
        """(B, outputs, H, W) from pixels before each pixel."""

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        numbers, values = self._pixels(tokens, context)
        channels = values.shape[-1]
        if not self.mixtures:
            return numbers[:, : tokens.shape[1]]
        mixture = Mixture.read(numbers, channels)
        levels = self.embed.values.to(values.dtype)
        tables = [mixture.logits(channel, values, levels) for channel in range(channels)]
        return torch.stack(tables, dim=2).flatten(1, 2)[:, : tokens.shape[1]]

    def log_prob(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        numbers, values = self._pixels(tokens, context)
        if not self.mixtures:
            return token_log_prob(numbers[:, : tokens.shape[1]], tokens)
        mixture = Mixture.read(numbers, values.shape[-1])
        scores = mixture.log_prob(values.to(mixture.mean.dtype), self.spec.vocab_size)
        return scores.flatten(1)[:, : tokens.shape[1]]

    def _pixels(self, tokens: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (B, H * W, outputs) and intensities (B, H * W, C)."""
        image = self.image(tokens)
        numbers = rearrange(self.features(image, context), "b f h w -> b (h w) f")
        return numbers, rearrange(image, "b c h w -> b (h w) c")

    def read_logits(self, program: Program, workspace: Tensor, column: int, channel: int) -> Tensor:
        numbers = program.out.at(workspace)
        if not self.mixtures:
            return numbers.clone()
        slot = program.image.window()
        first = slot.base + column // slot.step * slot.right
        values = workspace[:, first : first + self.spec.shape[2]]
        levels = self.embed.values.to(workspace.dtype)
        return Mixture.read(numbers, self.spec.shape[2]).logits(channel, values, levels)
