"""XTC (exclude top choices): sometimes only the least likely of the likely tokens is left.

References:
    | Exclude Top Choices (Philipp Emanuel Weidmann, 2024)
    | https://github.com/oobabooga/text-generation-webui/pull/6335
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from arlm.core import log_softmax
from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor

STREAM = 1  # of random numbers


@dataclass(frozen=True)
class Xtc(LogitsProcessor):
    """Where two tokens or more have probability `threshold`, drop all of them but the least likely.

    This happens at a share `probability` of the positions, by a random number that depends on the row's seed and the
    position, and is not the one of the draw. Of equally unlikely ones the first is kept.

    Order: after other truncations.

    Args:
        probability: in [0, 1]; 0 changes nothing.
        threshold: in (0, 1]; above 0.5 it changes nothing.
    """

    probability: float
    threshold: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "xtc", self.probability, "choose 0 to 1")
        mend = "choose above 0 and at most 1"
        require(0 < self.threshold <= 1, "xtc:threshold", self.threshold, mend)

    def outcomes(self) -> Sequence[tuple[float, LogitsProcessor]]:
        sometimes = replace(self, probability=1.0)
        return [
            (1 - self.probability, replace(self, probability=0.0)),
            (self.probability, sometimes),
        ]

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        if self.probability == 0 or self.threshold > 0.5:
            return logits
        likely = log_softmax(logits.double()).exp() >= self.threshold
        least = logits.where(likely, torch.inf).argmin(-1, keepdim=True)
        dropped = likely.scatter(-1, least, False)  # none, where one token is likely
        if self.probability < 1:
            dropped &= (history.uniform(STREAM) < self.probability)[:, None]
        return logits.masked_fill(dropped, -torch.inf)
