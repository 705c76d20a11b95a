"""Scores batches in their order: state carried from one to the next, labels smoothed in training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arlm.core import Autoregressor, Batch, Carried
from arlm.data.dataset import Rows, TokenDataset
from arlm.errors import UserError, require


class Reader:
    """log_prob of batch after batch; where `batch.fresh` is set, rows go on from the batch before.

    In training this is truncated back-propagation through time: the state is carried, gradients are not.

    Args:
        net: the network.
        compile: compile what scores a batch; the network's parameters and keys stay as they are.
        smoothing: share of the probability that labels give to all tokens alike, in [0, 1); it enters the
            gradient, never the value.
    """

    def __init__(self, net: Autoregressor, compile: bool = False, smoothing: float = 0.0) -> None:
        require(0 <= smoothing < 1, "model.label_smoothing", smoothing, "choose from 0 to below 1")
        if smoothing and type(net).log_prob is not Autoregressor.log_prob:
            raise UserError(
                f"model.label_smoothing: {type(net).__name__} scores tokens in a way of its own; choose 0"
            )
        wrap: Callable = torch.compile if compile else lambda function: function

        def smoothed(tokens: Tensor, context: Tensor | None) -> Tensor:
            return smoothed_log_prob(net(tokens, context), tokens, smoothing)

        self.net = net
        self._log_prob = wrap(smoothed if smoothing else net.log_prob)
        self._carry_on = wrap(net.carry_on)
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


def smoothed_log_prob(logits: Tensor, tokens: Tensor, smoothing: float) -> Tensor:
    """Nats of `tokens` (...) under `logits` (..., V), with the gradient of smoothed labels.

    The gradient is that of (1 - smoothing) log p(x) + smoothing * mean over v of log p(v).

    References:
        | Rethinking the Inception Architecture for Computer Vision (Szegedy et al., 2016), section 7
        | https://arxiv.org/abs/1512.00567
    """
    return _Smoothed.apply(logits, tokens, smoothing)


class _Smoothed(torch.autograd.Function):
    """One pass over the logits forward and one back, where the composition of torch's takes five."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, smoothing: float) -> Tensor:
        fine = torch.promote_types(logits.dtype, torch.float32)
        total = logits.to(fine).logsumexp(-1, keepdim=True)
        ctx.save_for_backward(logits, tokens, total)
        ctx.smoothing = smoothing
        return (logits.gather(-1, tokens.unsqueeze(-1)).to(fine) - total).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        logits, tokens, total = ctx.saved_tensors
        slope = slope.unsqueeze(-1)
        share = ctx.smoothing / logits.shape[-1]
        result = (logits - total).exp_().neg_().add_(share).mul_(slope)
        result.scatter_add_(-1, tokens.unsqueeze(-1), slope * (1 - ctx.smoothing))
        return result.to(logits.dtype), None, None


@dataclass(frozen=True)
class Scores:
    """What a network makes of each scored token of a split, in the order of the data; (N,) each."""

    places: Tensor  # in the split
    tokens: Tensor
    nats: Tensor  # float64, positive
    units: Tensor
    context: Tensor  # tokens that the network had read before
    seconds: float

    @property
    def likelihood(self) -> dict[str, float]:
        """nll, ppl, and bits per unit as "bits"."""
        nats, nll = float(self.nats.sum()), float(self.nats.mean())
        bits = nats / math.log(2) / float(self.units.sum())
        return {"nll": nll, "ppl": math.exp(min(nll, 700)), "bits": bits}


def score(net: Autoregressor, dataset: TokenDataset, batches: Iterable[Rows]) -> Scores:
    """Score every token of a split once, as its way of reading says."""
    reader, parts, seconds = Reader(net), [], 0.0
    read: Tensor | None = None
    with torch.inference_mode():
        for rows in batches:
            batch = dataset[rows]
            began = time.perf_counter()
            nats = -reader(batch).double()
            seconds += time.perf_counter() - began
            read = _read_before(batch, read)
            context = read[:, None] + torch.arange(batch.tokens.shape[1])
            read = read + batch.tokens.shape[1]
            mine = batch.scored
            every = dataset.places(rows), batch.tokens, nats, batch.units, context
            parts.append([part[mine] for part in every])
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    order = columns[0].argsort()
    places, tokens, all_nats, units, read_before = (column[order] for column in columns)
    return Scores(places, tokens, all_nats, units, read_before, seconds)


def _read_before(batch: Batch, read: Tensor | None) -> Tensor:
    """Tokens that each row's network has read before this batch, (B,)."""
    zeros = torch.zeros(len(batch.tokens), dtype=torch.long)
    return zeros if batch.fresh is None or read is None else read.where(~batch.fresh, zeros)


def check_same(scores: dict[str, Scores]) -> None:
    """Refuse networks that were not scored on the same tokens, saying how they differ."""
    (first, one), *others = scores.items()
    for name, other in others:
        here, there = len(one.tokens), len(other.tokens)
        told = f"runs: '{first}' and '{name}' cannot be compared: "
        mend = "; give runs of the same data, split and tokenizer, or one --data for all"
        if here != there:
            raise UserError(f"{told}they score {here} and {there} tokens{mend}")
        for what, a, b in (
            ("score token number", one.places, other.places),
            ("read the token", one.tokens, other.tokens),
        ):
            wrong = (a != b).nonzero()
            if len(wrong):
                at = int(wrong[0])
                raise UserError(f"{told}at {at} they {what} {int(a[at])} and {int(b[at])}{mend}")
        if not torch.equal(one.units, other.units):
            raise UserError(f"{told}a token is worth different amounts to them{mend}")
