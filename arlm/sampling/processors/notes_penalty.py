"""The course notes' penalties: a temperature for each token, which grows as the token is repeated.

Not those of the OpenAI API, which subtract: see `frequency_penalty` and `presence_penalty`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor


@dataclass(frozen=True)
class NotesPenalty(LogitsProcessor):
    """softmax(x / (T k)) with k = (1 + (frequency - 1) * count) * (1 + (presence - 1) * [count > 0]).

    T is that of the processor `temperature`. The notes give a factor for each penalty; both together are taken as
    the product. A quotient lowers positive logits only, so x is the logit above the row's smallest one that is not
    masked: x = logit - min, and the result is min + x / k. It depends on this choice of the zero.

    Order: before temperature and truncation; tokens that are masked before it change the minimum.

    Args:
        frequency: 1 or more; 1.1 adds 0.1 to the factor for each occurrence. 1 changes nothing.
        presence: 1 or more; 1.2 adds 0.2 once a token occurred. 1 changes nothing.
        prompt: whether the tokens of the prompt count too.
    """

    frequency: float
    presence: float = 1.0
    prompt: bool = True

    def __post_init__(self) -> None:
        mend = "choose 1 to 100; the notes' 0.1 is written 1.1"
        require(1 <= self.frequency <= 100, "notes_penalty:frequency", self.frequency, mend)
        require(1 <= self.presence <= 100, "notes_penalty:presence", self.presence, mend)

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.frequency == self.presence == 1:
            return logits
        exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
        least = exact.where(exact > -torch.inf, torch.inf).amin(-1, keepdim=True)
        tokens, some = history.occurring(self.prompt)
        given = exact.gather(1, tokens)
        counts = history.counts(self.prompt).gather(1, tokens).to(exact)
        divisor = (1 + (self.frequency - 1) * counts) * self.presence
        after = (least + (given - least) / divisor).where(some & (given > -torch.inf), given)
        return logits.scatter(1, tokens, after.to(logits.dtype))
