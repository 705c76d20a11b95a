"""Distillation: the student learns a teacher's distribution of every token, not only the token itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from arlm import checkpoints
from arlm.checkpoints.sharded import META, digest, is_sharded
from arlm.core import Autoregressor, Batch, Spec, log_softmax
from arlm.errors import UserError, require
from arlm.evaluation.likelihood import figures
from arlm.evaluation.weights import scored_weights
from arlm.training.objectives.base import Objective, Terms
from arlm.training.objectives.likelihood import likelihood_sums

Direction = Literal["forward", "reverse"]


class Distillation(Objective):
    """KL divergence between a frozen teacher and the network, in nats per scored token, by its weight.

    Figures: kl, and the network's own nll, ppl and bits per unit. The network's penalties are not added.

    Args:
        teacher: checkpoint of the teacher, a .ckpt file or the folder of a run; its tokens are the network's.
        kl: "forward" is KL(teacher || network), which covers all that the teacher does; "reverse" is
            KL(network || teacher), which keeps to what it does most.
        trusted: modules, packages and files whose classes the checkpoint may name, beside arlm's own; `--trust`
            adds to it.

    References:
        | Sequence-Level Knowledge Distillation (Kim, Rush, 2016), section 3.1, for "forward"
        | https://arxiv.org/abs/1606.07947
        | MiniLLM: Knowledge Distillation of Large Language Models (Gu et al., 2024), section 2.1, for
          "reverse", there over whole rows drawn from the network | https://arxiv.org/abs/2306.08543
    """

    monitor = "kl"
    sums = ("kl", "nats", "units")

    def __init__(
        self, teacher: str, kl: Direction = "forward", trusted: list[str] | None = None
    ) -> None:
        super().__init__()
        mend = f"choose {' or '.join(get_args(Direction))}"
        require(kl in get_args(Direction), "model.objective.kl", kl, mend)
        self.kl = kl
        self.teacher = teacher
        try:
            path = checkpoints.find(teacher)
            net = checkpoints.load(path, trusted or ()).net.requires_grad_(False)
        except UserError as error:
            raise UserError(f"model.objective.teacher: {error}") from None
        # In a tuple, the teacher is no submodule: it has no part in train(), parameters() and state_dict().
        self._frozen = (net,)
        self.checksum = digest(path / META if is_sharded(path) else path)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any) -> Any:
        """Move the teacher with the objective."""
        self._frozen[0]._apply(fn, *args)
        return super()._apply(fn, *args)

    def prepare(self, net: Autoregressor, compile: bool = False) -> None:
        check_same_tokens(self._frozen[0], net, self.teacher)
        wrap: Callable = torch.compile if compile else lambda function: function
        self._logits, self._teacher_logits = wrap(net.forward), wrap(self._frozen[0].forward)

    def loss(self, net: Autoregressor, batch: Batch) -> Terms:
        if batch.starts_document is not None:
            raise UserError("data.batching: distillation needs independent rows; choose windows")
        logits = self._logits if net.training else net.forward
        own = log_softmax(logits(batch.tokens, batch.context))
        with torch.no_grad():
            theirs = log_softmax(self._teacher_logits(batch.tokens, batch.context))
        divergence = divergences(theirs, own) if self.kl == "forward" else divergences(own, theirs)
        weights = scored_weights(batch)
        total = (divergence.where(batch.scored, 0) * weights.to(divergence.dtype)).sum()
        log_prob = own.gather(-1, batch.tokens.unsqueeze(-1)).squeeze(-1)
        kl = (divergence.detach().double().where(batch.scored, 0) * weights).sum()
        return Terms(total, weights.sum(), {"kl": kl} | likelihood_sums(log_prob, batch))

    def figures(self, sums: Mapping[str, float], unit: str) -> dict[str, float]:
        kl = sums["kl"] / sums["count"] if sums["count"] else float("nan")
        return {"kl": kl} | figures(sums["nats"], sums["count"], sums["units"], unit)

    def files(self) -> dict[str, str]:
        return {"teacher": self.checksum}


def divergences(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of distributions given as log-probabilities (..., V): (...) in nats.

    A token whose probability under p is 0 adds nothing, whatever q says.
    """
    possible = p > -torch.inf
    return (p.exp() * (p.where(possible, 0) - q.where(possible, 0))).sum(-1)


def check_same_tokens(teacher: Autoregressor, net: Autoregressor, path: str) -> None:
    """Raise a UserError if a teacher has other tokens than a network, or takes only shorter rows."""
    theirs, ours = (without_length(each.spec) for each in (teacher, net))
    longest, length = teacher.max_length, net.spec.length
    if theirs != ours or (longest is not None and longest < length):
        raise UserError(
            f"model.objective.teacher: '{path}' was trained on {teacher.spec}, but this data is {net.spec}; "
            "give a teacher with the same tokens, whose rows are no shorter"
        )


def without_length(spec: Spec) -> Spec:
    """A spec whose rows of text have no length; images keep their shape."""
    context = None if spec.context is None else without_length(spec.context)
    return replace(spec, shape=spec.shape if len(spec.shape) > 1 else (), context=context)
