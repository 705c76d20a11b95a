"""Presence penalty: tokens that occurred become less likely, however often they did.

References:
    | OpenAI API reference, "Frequency and presence penalties"
    | https://platform.openai.com/docs/guides/text-generation
"""

from dataclasses import dataclass

from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor


@dataclass(frozen=True)
class PresencePenalty(LogitsProcessor):
    """logits - penalty where the token occurred.

    Order: before temperature and truncation, so that it applies to the network's own logits.

    Args:
        penalty: nats, -100 to 100; 0 changes nothing, below 0 favours repetition.
        prompt: whether the tokens of the prompt count too.
        window: how many of the last tokens count; 0 for all.
    """

    penalty: float
    prompt: bool = False
    window: int = 0

    def __post_init__(self) -> None:
        require(abs(self.penalty) <= 100, "presence_penalty", self.penalty, "choose -100 to 100")
        require(self.window >= 0, "presence_penalty:window", self.window, "choose 0 or more")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        return logits - self.penalty * (history.counts(self.prompt, self.window) > 0).to(
            logits.dtype
        )
