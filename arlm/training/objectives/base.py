"""Objective: what a run minimises. `AutoregressiveModule` knows no loss; it asks its objective.

    batch --loss--> Terms(sum, count, figures)     of one batch in one process
                      |
                      + over accumulated batches, + over processes; then divided once:
                      |
                      +--> gradient of (all sums) / (all counts)
                      +--> figures(sums) -> {"nll": ..., ...}, logged as train/nll, val/nll, test/nll

So a step over several batches or processes is the step of one large batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from arlm.core import Autoregressor, Batch


@dataclass(frozen=True)
class Terms:
    """The loss of one batch, not yet divided. All are sums, so they are added over batches and processes."""

    sum: Tensor  # () what is minimised; without a gradient, nothing is optimised
    count: Tensor  # () what the sum is divided by, such as the number of scored tokens, or the sum of their weights
    figures: Mapping[str, Tensor] = field(
        default_factory=dict
    )  # () each, named by `Objective.sums`


class Objective(nn.Module, ABC):
    """What a run minimises: sum / count over the batches of one optimizer step in all processes.

    An objective has one count. A second loss enters the sum times a constant, never divided by a count of its
    own batch. Its parameters (a value head, for example) are trained and saved with the run under
    "objective."; `arlm.load` reads the network only.

    A subclass writes `loss` and `figures`, and sets
    - `monitor`: the figure that chooses the best checkpoint; a smaller one is better;
    - `sums`: names of the sums that `loss` returns in `Terms.figures`;
    - `takes`: the type of the batches; a run whose data module yields others is refused;
    - `optimizes`: False if `loss` fits the network by itself, such as by counting; then the run has no
      optimizer and no backward pass, and reads the training split once (`TokenDataModule.single_pass`).
    """

    monitor: ClassVar[str]
    sums: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[type] = Batch
    optimizes: ClassVar[bool] = True

    def prepare(self, net: Autoregressor, compile: bool = False) -> None:
        """Prepare for a network, before the first batch; called again when `compile` becomes known.

        Args:
            net: the network that `loss` will get.
            compile: compile the scoring of training batches.

        Raises:
            UserError: the objective cannot be used with this network.
        """

    @abstractmethod
    def loss(self, net: Autoregressor, batch: Any) -> Terms:
        """The terms of one batch, in training if `net.training`, otherwise in evaluation."""

    @abstractmethod
    def figures(self, sums: Mapping[str, float], unit: str) -> dict[str, float]:
        """What is reported.

        Args:
            sums: "sum", "count" and the names in `self.sums`, over all batches and processes.
            unit: of the data, for the names of figures: "byte" or "dim".
        """

    def files(self) -> dict[str, str]:
        """SHA-256 of each file that the objective reads, by the argument that names it; saved with the run."""
        return {}

    def start_evaluation(self) -> None:
        """Called before the first batch of an evaluation: forget the state of the one before."""

    def chunk_state(self) -> list[Tensor]:
        """What training carries from batch to batch, as tensors for a checkpoint."""
        return []

    def restore(self, saved: list[Tensor]) -> None:
        """Continue from the tensors that `chunk_state` returned."""
