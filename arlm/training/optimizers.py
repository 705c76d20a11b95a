"""Parameter groups by kind, and Muon for matrices with AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from arlm.core import Autoregressor
from arlm.errors import UserError, require
from arlm.training.learning_rates import LearningRates


def parameter_groups(
    net: Autoregressor, *more: nn.Module, rates: LearningRates | None = None
) -> list[dict[str, Any]]:
    """Parameters by kind. Embeddings (with tied heads) and vectors (norms, biases) get no weight decay.

    Args:
        net: the network.
        more: other modules that are trained with it, such as an objective.
        rates: factors of the learning rate; parameters with another factor than 1 are groups of their own, which
            hold it as `lr_factor`.
    """
    modules = nn.ModuleList([net, *more])
    embeddings = {m.weight for m in modules.modules() if isinstance(m, nn.Embedding)}
    head = getattr(net, "head", None)
    heads = {head.weight} if isinstance(head, nn.Linear) else set()
    factors = (rates or LearningRates()).factors(net)
    kinds = ("matrix", "kernel", "head", "embedding", "vector")
    found: dict[tuple[float, str], list[Tensor]] = {}
    for p in modules.parameters():
        if p.requires_grad:
            kind = "embedding" if p in embeddings else "head" if p in heads else None
            by_axes = "vector" if p.ndim < 2 else "matrix" if p.ndim == 2 else "kernel"
            found.setdefault((factors.get(p, 1.0), kind or by_axes), []).append(p)
    groups = []
    for factor, kind in sorted(found, key=lambda key: (-key[0], kinds.index(key[1]))):
        group: dict[str, Any] = {"params": found[factor, kind], "kind": kind}
        group |= {"weight_decay": 0.0} if kind in ("embedding", "vector") else {}
        groups.append(group if factor == 1 else group | {"lr_factor": factor})
    return groups


def build_optimizer(
    factory: Callable[[list[dict[str, Any]]], Optimizer], groups: list[dict[str, Any]]
) -> Optimizer:
    """The optimizer of some groups, with each group's factor of its learning rate.

    Raises:
        UserError: an option is out of range, such as a learning rate below 0.
    """
    try:
        optimizer = factory(groups)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"model.optimizer: {error}; correct its options") from None
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_factor", 1.0)
    return optimizer


class Muon(Optimizer):
    """`torch.optim.Muon` for groups whose "kind" is "matrix", `torch.optim.AdamW` for all others.

    The step of a matrix is W <- (1 - lr wd) W - lr 0.2 sqrt(max(rows, columns)) O, where O is the momentum made
    orthogonal; the factor gives it the size of AdamW's step (Liu et al., 2025).

    Args:
        params: groups from `parameter_groups`, each with a "kind".
        lr: learning rate of matrices.
        adam_lr: learning rate of all others.
        momentum: Nesterov momentum of matrices.
        weight_decay: of both.
        betas: of AdamW.

    References:
        | Muon: An optimizer for hidden layers in neural networks (Jordan et al., 2024)
        | https://kellerjordan.github.io/posts/muon/
        | Muon is Scalable for LLM Training (Liu et al., 2025) | https://arxiv.org/abs/2502.16982
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 0.02,
        adam_lr: float = 0.005,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        require(0 <= momentum < 1, "model.optimizer.momentum", momentum, "choose from 0 to below 1")
        of_matrices = {"lr": lr, "momentum": momentum}
        of_others = {"lr": adam_lr, "betas": betas}
        groups = [(of_matrices if is_matrix(group) else of_others) | group for group in params]
        super().__init__(groups, {"weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self._divide()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._divide()

    def _divide(self) -> None:
        """Make the two optimizers; their groups and their state are those of this one, not copies."""
        matrices = [group for group in self.param_groups if is_matrix(group)]
        others = [group for group in self.param_groups if not is_matrix(group)]
        self.parts: list[Optimizer] = []
        if matrices:
            self.parts.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw"))
        if others:
            self.parts.append(AdamW(others, fused=True))
        for part in self.parts:
            part.state = self.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; the closure, if any, is evaluated with gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss


def is_matrix(group: dict[str, Any]) -> bool:
    """Whether Muon updates the parameters of a group."""
    return group.get("kind") == "matrix"
