"""Frequency penalty: tokens become less likely each time they occur.

References:
    | OpenAI API reference, "Frequency and presence penalties"
    | https://platform.openai.com/docs/guides/text-generation
"""

import math
from dataclasses import dataclass

from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor


@dataclass(frozen=True)
class FrequencyPenalty(LogitsProcessor):
    """logits - penalty * (how often the token occurred).

    Order: before temperature and truncation, so that it applies to the network's own logits.

    Args:
        penalty: nats per occurrence; 0 changes nothing, below 0 favours repetition.
        prompt: whether the tokens of the prompt count too.
    """

    penalty: float
    prompt: bool = False

    def __post_init__(self) -> None:
        require(
            math.isfinite(self.penalty), "frequency_penalty", self.penalty, "choose a finite number"
        )

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        return logits - self.penalty * history.counts(self.prompt).to(logits.dtype)
