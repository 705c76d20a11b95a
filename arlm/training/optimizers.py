"""Parameter groups by kind, and Muon for matrices with AdamW for everything else."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from arlm.core import Autoregressor
from arlm.errors import require


def parameter_groups(net: Autoregressor, *more: nn.Module) -> list[dict[str, Any]]:
    """Parameters by kind. Embeddings (with tied heads) and vectors (norms, biases) get no weight decay.

    Args:
        net: the network.
        more: other modules that are trained with it, such as an objective.
    """
    modules = nn.ModuleList([net, *more])
    embeddings = {m.weight for m in modules.modules() if isinstance(m, nn.Embedding)}
    head = getattr(net, "head", None)
    heads = {head.weight} if isinstance(head, nn.Linear) else set()
    kinds: dict[str, list[Tensor]] = {
        "matrix": [],
        "kernel": [],
        "head": [],
        "embedding": [],
        "vector": [],
    }
    for p in modules.parameters():
        if p.requires_grad:
            kind = "embedding" if p in embeddings else "head" if p in heads else None
            by_axes = "vector" if p.ndim < 2 else "matrix" if p.ndim == 2 else "kernel"
            kinds[kind or by_axes].append(p)
    undecayed = {"weight_decay": 0.0}
    return [
        {"params": found, "kind": kind} | (undecayed if kind in ("embedding", "vector") else {})
        for kind, found in kinds.items()
        if found
    ]


class Muon(AdamW):
    """W <- (1 - lr wd) W - lr 0.2 sqrt(max(rows, columns)) O, where O is the momentum made orthogonal.

    This is the step of groups whose "kind" is "matrix"; AdamW takes all other groups. The factor 0.2
    sqrt(...) gives a step the size of AdamW's (Liu et al., 2025).

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
        groups = [
            {"lr": lr if group.get("kind") == "matrix" else adam_lr} | group for group in params
        ]
        self.momentum = momentum
        super().__init__(groups, adam_lr, betas, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; the closure, if any, is evaluated with gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group.get("kind") == "matrix":
                self._orthogonal_step(group)
        self.param_groups = [group for group in groups if group.get("kind") != "matrix"]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _orthogonal_step(self, group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is not None:
                by_shape[weight.shape].append(weight)
        for (rows, columns), weights in by_shape.items():
            gradients: list[Tensor] = [weight.grad for weight in weights]  # type: ignore[misc]
            moments = [self._momentum(weight) for weight in weights]
            torch._foreach_lerp_(moments, gradients, 1 - self.momentum)
            nesterov = torch._foreach_lerp(gradients, moments, self.momentum)
            steps = orthogonal(torch.stack(nesterov)).to(weights[0].dtype)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            size = group["lr"] * 0.2 * math.sqrt(max(rows, columns))
            torch._foreach_add_(weights, list(steps.unbind()), alpha=-size)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if not state:  # AdamW expects a step in every state that it loads
            state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}
        return state["momentum"]


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Approximately U V^T for each matrix U S V^T: the singular values become 0.7 to 1.2.

    Args:
        matrices: (N, rows, columns).
        steps: number of Newton-Schulz iterations of degree 5, in bfloat16.
    """
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x
