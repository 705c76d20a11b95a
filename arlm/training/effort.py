"""Training effort: tokens and seconds."""

from __future__ import annotations

import time

from torch import Tensor


class Effort:
    """Scored tokens of this process and seconds of training, those before a resume included.

    Args:
        tokens, before: tokens and seconds up to the checkpoint that is resumed.
    """

    def __init__(self, tokens: int = 0, before: float = 0.0) -> None:
        self._tokens: Tensor | int = tokens
        self._before = before
        self._started: float | None = None

    def start(self) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def count(self, scored: Tensor) -> None:
        """Add the number of scored tokens, on its device, without synchronising."""
        self._tokens = self._tokens + scored

    @property
    def tokens(self) -> int:
        """Scored tokens up to now."""
        return int(self._tokens)

    @property
    def seconds(self) -> float:
        """Seconds of training, validation and samples up to now."""
        return self._before + (0.0 if self._started is None else time.monotonic() - self._started)
