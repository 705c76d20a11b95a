"""Training effort: tokens and seconds."""

from __future__ import annotations

import time

from torch import Tensor

from arlm.core import Spec


class Effort:
    """Scored tokens of this process and seconds of training, those before a resume included.

    Args:
        tokens, before: tokens and seconds up to the checkpoint that is resumed.
    """

    def __init__(self, tokens: Tensor | int = 0, before: float = 0.0) -> None:
        self._tokens: Tensor | int = tokens
        self._before = before
        self._started: float | None = None

    def start(self) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def copy(self) -> Effort:
        """What was counted up to now; its seconds do not grow."""
        return Effort(self._tokens, self.seconds)

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


class Rate:
    """Speed of training, measured since the last call of `restart` or `figures`."""

    def __init__(self, effort: Effort) -> None:
        self.restart(effort)

    def restart(self, effort: Effort) -> None:
        """Begin to measure: at the start, and after each validation."""
        self._tokens, self._seconds = effort.tokens, effort.seconds

    def figures(self, effort: Effort, processes: int, spec: Spec) -> dict[str, float]:
        """Tokens a second over all processes, and images a second for images; begin to measure again."""
        seconds = max(effort.seconds - self._seconds, 1e-9)
        speed = (effort.tokens - self._tokens) * processes / seconds
        self.restart(effort)
        images = {"images_per_second": speed / spec.length} if len(spec.shape) > 1 else {}
        return {"tokens_per_second": speed} | images
