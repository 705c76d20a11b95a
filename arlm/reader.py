"""Scores batches in their order, carrying the state of rows that go on from one batch to the next."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from arlm.core import Autoregressor, Batch, Carried
from arlm.errors import UserError


class Reader:
    """log_prob of batch after batch; where `batch.fresh` is set, rows go on from the batch before.

    In training this is truncated back-propagation through time: the state is carried, gradients are not.

    Args:
        net: the network.
        compile: compile what scores a batch; the network's parameters and keys stay as they are.
    """

    def __init__(self, net: Autoregressor, compile: bool = False) -> None:
        wrap: Callable = torch.compile if compile else lambda function: function
        self.net = net
        self._log_prob, self._carry_on = wrap(net.log_prob), wrap(net.carry_on)
        self.carried: Carried | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Nats (B, T) of a batch."""
        if batch.fresh is None:
            return self._log_prob(batch.tokens, batch.context)
        if not self.net.carries:
            raise UserError(
                f"data.reading: {type(self.net).__name__} cannot carry its state from row to row; "
                "choose windows for it"
            )
        fresh, before = batch.fresh, self.carried
        if before is None or bool(fresh.all()):
            log_prob, carried = self._carry_on(batch.tokens, None, batch.context)
        elif not bool(fresh.any()):
            log_prob, carried = self._carry_on(batch.tokens, before, batch.context)
        else:  # those that begin, and those that go on
            new, old = fresh.nonzero().flatten(), (~fresh).nonzero().flatten()
            given = None if batch.context is None else batch.context[new]
            first, begun = self._carry_on(batch.tokens[new], None, given)
            rest = Carried(before.last[old], before.state[old])
            second, gone = self._carry_on(batch.tokens[old], rest, None)
            order = torch.cat([new, old]).argsort()
            log_prob = torch.cat([first, second])[order]
            last = torch.cat([begun.last, gone.last])[order]
            carried = Carried(last, begun.state.join(gone.state)[order])
        self.carried = Carried(carried.last, carried.state.map(torch.Tensor.detach))
        return log_prob

    def saved(self) -> list[Tensor]:
        """What is carried, as plain tensors for a checkpoint; nothing at a beginning."""
        return [] if self.carried is None else [self.carried.last, *self.carried.state.leaves()]

    def restore(self, saved: list[Tensor]) -> None:
        """Go on from what `saved` gave."""
        if saved:
            last, *leaves = saved
            _, state = self.net.start(len(last), 1)
            self.carried = Carried(last, state.filled(iter(leaves)))
