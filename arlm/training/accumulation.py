"""One optimizer step: sums and counts are added over batches and processes, and divided once.

    process 0   batch 0: sum, count   batch 1: sum, count   \
                                                              gradient of (all sums) / (all counts)
    process 1   batch 0: sum, count   batch 1: sum, count   /

The mean of the batches' means differs from this where their counts differ, as those of padded sentences do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from arlm.training.objectives import Terms


class Totals:
    """Adds the terms of batches in float64, on their device.

    Args:
        names: of the sums in `Terms.figures`.
        device: of the batches; a process that gets no batch needs it too.
    """

    def __init__(self, names: Iterable[str], device: torch.device) -> None:
        self.names = ("sum", "count", *names)
        self.values = torch.zeros(len(self.names), dtype=torch.float64, device=device)

    def add(self, terms: Terms) -> None:
        """Add the terms of one batch."""
        parts = {"sum": terms.sum.detach(), "count": terms.count} | dict(terms.figures)
        self.values = self.values + torch.stack([parts[name].double() for name in self.names])

    def over_processes(self, strategy: Any, **further: float) -> dict[str, float]:
        """The sums over all processes, by name; those of `further` numbers too, in the same communication."""
        values = torch.cat([self.values, self.values.new_tensor(list(further.values()))])
        values = strategy.reduce(values, reduce_op="sum")
        return dict(zip((*self.names, *further), values.tolist(), strict=True))


class AccumulatedLoss:
    """The loss of one optimizer step: all sums / all counts, over accumulated batches and processes.

    The counts of later batches and other processes are unknown when a batch is propagated back. So each sum
    is divided by a constant, a power of two near the count of the first batch, which keeps gradients in the
    range of float16; before the optimizer steps, all gradients are multiplied by constant / count.

    Args:
        names, device: as for Totals.
    """

    def __init__(self, names: Iterable[str], device: torch.device) -> None:
        self.names, self.device = tuple(names), device
        self.totals = Totals(self.names, device)
        self.batches = 0  # since the last optimizer step
        self.pending: Terms | None = None  # added, and not propagated back yet
        self.constant = 0.0  # 0 before the first batch

    def add(self, terms: Terms, trainer: Any) -> Tensor | None:
        """Add a batch; returns what is propagated back, or None if there is nothing to optimise.

        It counts when `commit` is called, after the backward pass: a run that is stopped in between does the
        batch again.
        """
        self.pending = terms
        if not terms.sum.requires_grad:
            self.commit()
            return None
        if not self.constant:
            count = strategy_sum(trainer.strategy, terms.count)
            self.constant = power_of_two(count / trainer.world_size)
        return terms.sum / self.constant

    def commit(self) -> None:
        """Count the batch that was added last."""
        if self.pending is not None:
            self.totals.add(self.pending)
            self.batches, self.pending = self.batches + 1, None

    def finish(self, optimizer: Optimizer, trainer: Any, **further: float) -> dict[str, float]:
        """Rescale the gradients, and start again; returns the sums, by name, and those of `further` numbers.

        If nothing was counted, the gradients are removed: no optimizer moves parameters without one.

        Lightning divides the loss by the number of accumulated batches, although the last step of an epoch
        may have fewer, and the strategy averages gradients over processes. Both are undone here.
        """
        sums = self.totals.over_processes(trainer.strategy, **further)
        self.totals, self.batches = Totals(self.names, self.device), 0
        divisor = self.constant * trainer.accumulate_grad_batches * trainer.world_size
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if sums["count"]:
            rescale_gradients(parameters, divisor / sums["count"])
        else:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
                scaler.unscale_(optimizer)  # a fused optimizer would do it, from its gradients
            for parameter in parameters:
                parameter.grad = None
        return sums

    def saved(self, parameters: Iterable[tuple[str, nn.Parameter]], trainer: Any) -> dict[str, Any]:
        """Sums and gradients of a step that is not finished, for a checkpoint; empty between steps.

        They are added up over the processes, so every process has to call it.
        """
        if not self.batches:
            return {}
        sums = trainer.strategy.reduce(self.totals.values.clone(), reduce_op="sum")
        gradients = gradients_over_processes(parameters, trainer)
        numbers = {"constant": self.constant, "batches": self.batches}
        return numbers | {"sums": sums, "gradients": gradients}

    def restore(
        self, saved: dict[str, Any], parameters: Iterable[tuple[str, nn.Parameter]], trainer: Any
    ) -> None:
        """Continue the step that `saved` returned.

        The sums continue in one process. Each process gets an equal share of the gradients, since the strategy
        averages them over processes.
        """
        if saved:
            self.constant, self.batches = saved["constant"], saved["batches"]
            if trainer.is_global_zero:
                self.totals.values = saved["sums"].to(self.device)
            for name, parameter in parameters:
                if name in saved["gradients"]:
                    share = (saved["gradients"][name] / trainer.world_size).to(parameter.device)
                    if isinstance(parameter, DTensor) and not isinstance(share, DTensor):
                        place = parameter.device_mesh, parameter.placements
                        share = distribute_tensor(share, *place)
                    parameter.grad = share


def gradients_over_processes(
    parameters: Iterable[tuple[str, nn.Parameter]], trainer: Any
) -> dict[str, Tensor]:
    """The gradients of a step that is not finished, by name, added up over the processes.

    A parameter may have a gradient in some processes only. One that has none in any process is left out.
    """
    trained = [(name, value) for name, value in parameters if value.requires_grad]
    found = torch.tensor([value.grad is not None for _, value in trained], dtype=torch.double)
    total: dict[str, Tensor] = {}
    if not trained:
        return total
    counts = trainer.strategy.reduce(found.to(trained[0][1].device), reduce_op="sum").tolist()
    for (name, value), count in zip(trained, counts, strict=True):
        if isinstance(value.grad, DTensor):  # averaged already, and divided among the processes
            total[name] = value.grad.detach() * trainer.world_size
        elif count:
            gradient = torch.zeros_like(value) if value.grad is None else value.grad.clone()
            total[name] = trainer.strategy.reduce(gradient, reduce_op="sum").detach()
    return total


def strategy_sum(strategy: Any, value: Tensor) -> float:
    """The sum of a number over all processes."""
    return float(strategy.reduce(value.double().clone(), reduce_op="sum"))


def power_of_two(number: float) -> float:
    """The power of two nearest to a number on a logarithmic scale, at least 1."""
    return 2.0 ** round(math.log2(max(1.0, number)))


@torch.no_grad()
def rescale_gradients(parameters: Iterable[nn.Parameter], factor: float) -> None:
    """Multiply all gradients by a factor, in place."""
    gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    if gradients:
        torch._foreach_mul_(gradients, factor)
