"""No repeated n-grams: a token may not complete an n-gram that occurred.

References:
    | A Deep Reinforced Model for Abstractive Summarization (Paulus, Xiong, Socher, 2017), section 2.5, for trigrams
    | https://arxiv.org/abs/1705.04304
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from arlm.errors import require
from arlm.sampling.processors import History, LogitsProcessor, masked_tokens


@dataclass(frozen=True)
class NoRepeatNgram(LogitsProcessor):
    """Mask the tokens that followed the last n - 1 tokens before.

    A small vocabulary may run out of tokens, which is refused: choose a larger n.

    Order: before temperature and truncation, which then choose among the tokens that are left.

    Args:
        n: tokens in an n-gram, at least 1, which lets no token occur twice.
        prompt: whether n-grams of the prompt count too.
    """

    n: int
    prompt: bool = True

    def __post_init__(self) -> None:
        require(self.n >= 1, "no_repeat_ngram", self.n, "choose at least 1")

    def __call__(self, logits: Tensor, history: History) -> Tensor:
        before, tokens = self.n - 1, history.tokens
        if tokens.shape[1] < self.n:
            return logits  # every row is too short
        columns = torch.arange(before, tokens.shape[1], device=tokens.device)  # of the last token
        repeated = columns < history.lengths[:, None]
        repeated &= columns - before >= history.first(self.prompt)[:, None]
        for i, token in enumerate(history.last(before).unbind(1)):
            repeated &= tokens[:, i : i + len(columns)] == token[:, None]
        return masked_tokens(logits, tokens[:, before:], repeated)
