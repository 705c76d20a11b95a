"""Networks whose logits are a linear map of features, and their loss without all logits at once.

    tokens, context --features--> (B, T, F) --logits--> (B, T, V)
                                      |
                                      +--> log-probabilities (B, T), a block of tokens at a time

With V = 50,257 and 4 rows of 1,024 tokens, the logits alone take 823 MB in float32, and their log-softmax and
gradient as much again.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from arlm.core import Autoregressor, Spec, token_log_prob
from arlm.errors import require
from arlm.layers.head import log_prob_in_blocks

MAX_LOGITS = 2**24  # 64 MiB in float32


class FeatureAutoregressor(Autoregressor):
    """An autoregressor that writes `features` in place of `forward`.

    A batch of more than `max_logits` logits is scored in blocks of about so many, which are computed again in
    the backward pass: peak memory no longer grows with tokens times V, and gradients are the same. A smaller
    batch is scored by `forward`, in one block. So `logits` and `linear_map` have to say the same: whoever writes
    `logits` anew (to scale them, for example) writes `linear_map`, too, or sets `max_logits` to no limit.

    Args:
        spec: of the data.
        max_logits: logits that scoring holds at once.
    """

    head: nn.Linear

    def __init__(self, spec: Spec, max_logits: int = MAX_LOGITS) -> None:
        super().__init__(spec)
        require(max_logits >= 1, "model.net.max_logits", max_logits, "choose at least 1")
        self.max_logits = max_logits

    @abstractmethod
    def features(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """Features of every token of a row, in one pass.

        Args: tokens (B, T) int64 and context (B, S) or None, as for `forward`.
        Returns: (B, T, F), aligned with the logits: `[:, t]` depends on `tokens[:, :t]` only.
        """

    def logits(self, features: Tensor) -> Tensor:
        """Features (..., F) -> logits (..., V)."""
        return self.head(features)

    def linear_map(self) -> tuple[Tensor, Tensor | None]:
        """What `logits` multiplies with, (V, F), and adds, (V,)."""
        return self.head.weight, self.head.bias

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        return self.logits(self.features(tokens, context))

    def log_prob(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        if self.scores_in_blocks(tokens):
            return self.features_log_prob(self.features(tokens, context), tokens)
        return super().log_prob(tokens, context)

    def scores_in_blocks(self, tokens: Tensor) -> bool:
        """Whether these tokens have too many logits for one block."""
        # A subclass with a `forward` of its own is scored by it.
        own = type(self).forward is FeatureAutoregressor.forward
        return own and tokens.numel() * self.spec.vocab_size > self.max_logits

    def features_log_prob(self, features: Tensor, tokens: Tensor, smoothing: float = 0.0) -> Tensor:
        """log p of `tokens` (B, S) given features (B, S, F), in nats: (B, S).

        Args:
            features, tokens: aligned; in blocks if there are too many for one.
            smoothing: of labels, in the gradient only; ignored unless `scores_in_blocks`.
        """
        if not self.scores_in_blocks(tokens):
            return token_log_prob(self.logits(features), tokens)
        rows = max(1, self.max_logits // self.spec.vocab_size)
        return log_prob_in_blocks(features, *self.linear_map(), tokens, rows, smoothing)
