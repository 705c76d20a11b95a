"""Discretised mixture of logistics: the probability of a level is the integral of a density over an interval.

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

LOG_SCALES = (-7.0, 7.0)  # log scales are clamped to this range


def parameter_count(mixtures: int, channels: int) -> int:
    """Number of parameters of a pixel: weights, means, scales, and slopes of means on earlier channels."""
    return mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)


class Mixture(NamedTuple):
    """K logistics for each of C channels, which share their weights."""

    log_weight: Tensor  # (..., K)
    mean: Tensor  # (..., C, K), without the contribution of earlier channels
    log_scale: Tensor  # (..., C, K)
    slope: Tensor  # (..., C (C - 1) / 2, K), in (-1, 1): G from R, B from R, B from G

    @classmethod
    def read(cls, numbers: Tensor, channels: int) -> Mixture:
        """Split a network's output (..., `parameter_count`), converted to float32 or better."""
        numbers = numbers.to(torch.promote_types(numbers.dtype, torch.float32))
        slopes = channels * (channels - 1) // 2
        parameters = numbers.unflatten(-1, (1 + 2 * channels + slopes, -1))
        weight, mean, scale, slope = parameters.split([1, channels, channels, slopes], dim=-2)
        return cls(
            weight.squeeze(-2).log_softmax(-1),
            mean,
            scale.clamp(*LOG_SCALES),
            slope.tanh(),
        )

    def mean_of(self, channel: int, values: Tensor) -> Tensor:
        """Mean of a channel (..., K), given the intensities (..., C) of the earlier channels."""
        first = channel * (channel - 1) // 2
        slopes = self.slope[..., first : first + channel, :]
        return self.mean[..., channel, :] + (slopes * values[..., :channel, None]).sum(-2)

    def log_mass(self, channel: int, mean: Tensor, value: Tensor, levels: int) -> Tensor:
        """log P(channel = value) under each logistic: its density integrated over value +- half a step.

        With p and m the standardised upper and lower bounds, the difference of the CDFs is computed as
        sigmoid(p) - sigmoid(m) = sigmoid(p) sigmoid(-m) (1 - exp(m - p)), which is accurate in the tails.

        Args:
            mean: (..., K).
            value: (..., 1) intensities in [-1, 1]; the lowest and highest levels include the tails.
            levels: V.

        Returns: (..., K).
        """
        half = 1 / (levels - 1)
        log_scale = self.log_scale[..., channel, :]
        inverse_scale = torch.exp(-log_scale)
        upper, lower = (value + half - mean) * inverse_scale, (value - half - mean) * inverse_scale
        lowest, highest = value < half - 1, value > 1 - half
        log_factor = torch.log(-torch.expm1(-2 * half * inverse_scale))  # log(1 - exp(m - p))
        return (
            torch.where(highest, 0.0, F.logsigmoid(upper))
            + torch.where(lowest, 0.0, F.logsigmoid(-lower))
            + torch.where(lowest | highest, 0.0, log_factor)
        )

    def log_prob(self, values: Tensor, levels: int) -> Tensor:
        """log P of each channel given the earlier ones, (..., C), without logits of all levels."""
        weight, scores = self.log_weight, []
        for channel in range(values.shape[-1]):
            mean = self.mean_of(channel, values)
            joint = weight + self.log_mass(channel, mean, values[..., channel, None], levels)
            score = joint.logsumexp(-1, keepdim=True)
            scores.append(score)
            weight = joint - score
        return torch.cat(scores, dim=-1)

    def logits(self, channel: int, values: Tensor, levels: Tensor) -> Tensor:
        """log P of all levels of one channel, (..., V), given the intensities of earlier channels.

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


def exact(values: Tensor, levels: int) -> Tensor:
    """Intensities of half precision as float32, without the rounding of the levels; others as they are.

    Rounding to bfloat16 moves a level of 256 by up to a quarter of the distance to the next: then the intervals
    of the levels would overlap, and their probabilities would not sum to 1.
    """
    if values.dtype not in (torch.bfloat16, torch.float16):
        return values
    steps = (values.float() + 1) * ((levels - 1) / 2)
    return steps.round() * (2 / (levels - 1)) - 1


class MixturePixelNetwork(PixelNetwork):
    """A network that scores all channels of a pixel together by a mixture of logistics.

    With `mixtures` 0 it scores a single channel by a softmax over V levels instead. A subclass writes
    `features`, which returns `outputs` feature maps.
    """

    mixtures: int

    def __init__(self, spec: Spec, mixtures: int) -> None:
        super().__init__(spec, grouped=False)
        require(mixtures >= 0, "model.net.mixtures", mixtures, "choose 0 for a softmax, or more")
        if not mixtures and spec.shape[2] > 1:
            raise UserError(
                f"model.net.mixtures: 0 is a softmax for one channel, but the data has "
                f"{spec.shape[2]}; choose 10"
            )
        self.mixtures, self.logits_in_program = mixtures, not mixtures

    @property
    def outputs(self) -> int:
        """Number of feature maps that parametrise the mixture or the softmax."""
        channels = self.spec.shape[2]
        return parameter_count(self.mixtures, channels) if self.mixtures else self.spec.vocab_size

    @abstractmethod
    def features(self, image: Tensor, context: Tensor | None) -> Tensor:
        """Outputs (B, outputs, H, W); those at a pixel depend on earlier pixels only."""

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        numbers, values = self._pixels(tokens, context)
        channels = values.shape[-1]
        if not self.mixtures:
            return numbers[:, : tokens.shape[1]]
        mixture = Mixture.read(numbers, channels)
        levels = exact(self.embed.values, self.spec.vocab_size)
        tables = [mixture.logits(channel, values, levels) for channel in range(channels)]
        return torch.stack(tables, dim=2).flatten(1, 2)[:, : tokens.shape[1]]

    def log_prob(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        numbers, values = self._pixels(tokens, context)
        if not self.mixtures:
            return token_log_prob(numbers[:, : tokens.shape[1]], tokens)
        mixture = Mixture.read(numbers, values.shape[-1])
        scores = mixture.log_prob(values, self.spec.vocab_size)
        return scores.flatten(1)[:, : tokens.shape[1]]

    def _pixels(self, tokens: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (B, H * W, outputs) and exact intensities (B, H * W, C)."""
        image = self.image(tokens)
        numbers = rearrange(self.features(image, context), "b f h w -> b (h w) f")
        values = rearrange(image, "b c h w -> b (h w) c")
        return numbers, exact(values, self.spec.vocab_size)

    def read_logits(self, program: Program, workspace: Tensor, column: int, channel: int) -> Tensor:
        numbers = program.out.at(workspace)
        if not self.mixtures:
            return numbers.clone()
        slot = program.image.window()
        first = slot.base + column // slot.step * slot.right
        size = self.spec.vocab_size
        values = exact(workspace[:, first : first + self.spec.shape[2]], size)
        levels = exact(self.embed.values, size)
        return Mixture.read(numbers, self.spec.shape[2]).logits(channel, values, levels)
