"""Regression of texts: a distribution over the bins of a value, with a mean and a scale.

References:
    | PixelCNN++ (Salimans et al., 2017), section 2.1, the discretised logistic | https://arxiv.org/abs/1701.05517
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from arlm.adapters.classifier import Classifier
from arlm.core import Spec
from arlm.errors import UserError

LEAST, MOST = -6.0, 3.0  # logarithm of the scale, where the bins cover the unit interval


class Regressor(Classifier):
    """p(bin | texts): a logistic distribution on the unit interval, cut into V equal bins; the ends are open.

    log p(bin k) = log(sigmoid((e_{k+1} - m) / s) - sigmoid((e_k - m) / s)), where e_k = k / V, and the head gives m
    and log s. Which values the bins stand for is the domain's (`RegressionDomain`).

    The arguments are those of Classifier.
    """

    outputs = 2

    def _check_spec(self, spec: Spec) -> Spec:
        context = super()._check_spec(spec)
        if context.kind == "choices":
            raise UserError(
                "model.net: Regressor predicts a value of texts, but the data has choices; choose "
                "arlm.adapters.classifier.Classifier"
            )
        return context

    def classes(self, outputs: Tensor) -> Tensor:
        """Mean and log scale (B, 2) -> log-probabilities of the bins (B, V)."""
        bins = self.spec.vocab_size
        # In bfloat16, edges that differ by less than 1 / 256 would be the same.
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        mean = 0.5 + outputs[:, :1]  # the middle of the interval at first
        scale = (outputs[:, 1:] - 1.5).clamp(LEAST, MOST).exp()
        edges = torch.arange(1, bins, device=outputs.device, dtype=outputs.dtype) / bins
        at = (edges - mean) / scale  # (B, V - 1)
        if bins == 1:
            return at.new_zeros(len(at), 1)
        below, above = F.logsigmoid(at), F.logsigmoid(-at)
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b))
        gap = torch.log(-torch.expm1(-1 / (bins * scale)))
        inside = below[:, 1:] + above[:, :-1] + gap
        return torch.cat([below[:, :1], inside, above[:, -1:]], dim=1)
