"""Repetition penalty: tokens that occurred have their logits scaled down.

References:
    | CTRL: A Conditional Transformer Language Model for Controllable Generation (Keskar et al., 2019), section 4.1
    | https://arxiv.org/abs/1909.05858
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor


@dataclass(frozen=True)
class RepetitionPenalty(LogitsProcessor):
    """Where the token occurred: logit / penalty if the logit is positive, else logit * penalty.

    The result depends on a constant that is added to all logits, although it changes no probability. With
    `normalised` it does not: the log-probability is multiplied by the penalty.

    Order: before temperature and truncation, so that it applies to the network's own logits.

    Args:
        penalty: above 0; 1 changes nothing, below 1 favours repetition.
        window: how many of the last tokens count; 0 for all.
        prompt: whether the tokens of the prompt count too.
        normalised: whether log-probabilities are scaled instead of logits.
    """

    penalty: float
    window: int = 0
    prompt: bool = True
    normalised: bool = False

    def __post_init__(self) -> None:
        mend = "choose above 0 and at most 100"
        require(0 < self.penalty <= 100, "repetition_penalty", self.penalty, mend)
        require(self.window >= 0, "repetition_penalty:window", self.window, "choose 0 or more")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.penalty == 1:
            return logits
        tokens, some = history.occurring(self.prompt, self.window)
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        given, most = exact.gather(1, tokens), torch.finfo(logits.dtype).max
        if self.normalised:
            total = exact.logsumexp(-1, keepdim=True)
            after = (given + (self.penalty - 1) * (given - total)).clamp_(-most, most)
            after = after.where(given > -torch.inf, given)
        elif (
            self.penalty > 1
        ):  # quotients of positive logits are smaller, products of negative ones
            after = (given / self.penalty).minimum((given * self.penalty).clamp_(min=-most))
        else:
            after = (given / self.penalty).maximum(given * self.penalty).clamp_(max=most)
        return logits.scatter(1, tokens, after.where(some, given).to(logits.dtype))
