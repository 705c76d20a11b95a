"""Frequency penalty: tokens become less likely each time they occur.

References:
    | OpenAI API reference, "Frequency and presence penalties"
    | https://platform.openai.com/docs/guides/text-generation
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor


@dataclass(frozen=True)
class FrequencyPenalty(LogitsProcessor):
    """logits - penalty * (how often the token occurred).

    Order: before temperature and truncation, so that it applies to the network's own logits.

    Args:
        penalty: nats per occurrence, -100 to 100; 0 changes nothing, below 0 favours repetition.
        prompt: whether the tokens of the prompt count too.
        window: how many of the last tokens count; 0 for all.
    """

    penalty: float
    prompt: bool = False
    window: int = 0

    def __post_init__(self) -> None:
        require(abs(self.penalty) <= 100, "frequency_penalty", self.penalty, "choose -100 to 100")
        require(self.window >= 0, "frequency_penalty:window", self.window, "choose 0 or more")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        exact = torch.promote_types(logits.dtype, torch.float32)  # counts exceed float16
        after = logits.to(exact) - self.penalty * history.counts(self.prompt, self.window).to(exact)
        return after.clamp(max=torch.finfo(logits.dtype).max).to(logits.dtype)
