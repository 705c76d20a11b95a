"""The tree of a beam search: every prefix that was kept, and every row that finished.

    start -- "a"   -1.0 -- "a dog" -1.5 -- "a dog." -1.7   finished
          |             `- "a cat" -2.4                    kept, but not extended
          `- "the" -1.2 -- "the."  -1.9                    finished

The numbers are log-probabilities of prefixes, in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from arlm.sampling import BeamStep


@dataclass
class Node:
    """A prefix.

    Args:
        tokens: of the prefix; those of the prompt are not among them.
        log_prob: nats of these tokens.
        parent: index of the prefix without the last token; None for the root.
        score: of a finished row; None for a prefix.
        children: indices of the prefixes that extend it.
    """

    tokens: tuple[int, ...]
    log_prob: float
    parent: int | None
    score: float | None = None
    children: list[int] = field(default_factory=list)


class BeamTree:
    """Collects one row's search; `observe` is an argument of `beam_search`.

    Args:
        row: which row of the batch.
    """

    def __init__(self, row: int = 0) -> None:
        self.row = row
        self.prompted = 0  # tokens of the prompt
        self.nodes = [Node((), 0.0, None)]
        self._index: dict[tuple[int, ...], int] = {(): 0}

    def observe(self, step: BeamStep) -> None:
        """Add the prefixes that a step kept, and the rows that it finished."""
        if len(self.nodes) == 1:
            self.prompted = step.kept.shape[2] - 1  # the first step adds one token
        for at in (step.rows == self.row).nonzero().flatten().tolist():
            self._add(step.kept[at], step.log_prob[at], None)
            self._add(step.ended[at], step.ended_log_prob[at], step.score[at])

    def _add(self, rows: Tensor, log_prob: Tensor, scores: Tensor | None) -> None:
        """Add those of the rows (c, t) whose figures (c,) are finite."""
        figures = log_prob if scores is None else scores
        for at in (figures > -math.inf).nonzero().flatten().tolist():
            tokens = tuple(rows[at, self.prompted :].tolist())
            parent = self._index[tokens[:-1]]
            score = None if scores is None else float(scores[at])
            self._index[tokens] = len(self.nodes)
            self.nodes[parent].children.append(len(self.nodes))
            self.nodes.append(Node(tokens, float(log_prob[at]), parent, score))

    @property
    def finished(self) -> list[int]:
        """Indices of the finished rows, highest score first."""
        scored = [(node.score, -i) for i, node in enumerate(self.nodes) if node.score is not None]
        return [-i for _, i in sorted(scored, reverse=True)]

    def path(self, index: int) -> list[int]:
        """Indices from the root to a node."""
        found: list[int] = []
        at: int | None = index
        while at is not None:
            found.append(at)
            at = self.nodes[at].parent
        return found[::-1]
