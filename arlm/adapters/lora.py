"""Low-rank adaptation: W + s B A, with W frozen, for any network.

References:
    | LoRA: Low-Rank Adaptation of Large Language Models (Hu et al., 2022) | https://arxiv.org/abs/2106.09685
    | A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA (Kalajdzievski, 2023), rsLoRA
    | https://arxiv.org/abs/2312.03732
    | LoRA+: Efficient Low Rank Adaptation of Large Models (Hayou, Ghosh, Yu, 2024) | https://arxiv.org/abs/2402.12354
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from arlm.adapters.adapted import Adapted
from arlm.adapters.classifier import Classifier
from arlm.core import Autoregressor, Spec
from arlm.errors import UserError, require

Scaling = Literal["lora", "rslora"]


class LoRA(Adapted):
    """W' = W + s B A in matrices and kernels of a frozen network: B (rows, r) begins at 0, A (r, columns) at random.

    A weight of more axes, such as a convolution's kernel, is the matrix of its first axis and all others. A tied
    weight has two names, and an adapter on one of them leaves the other as it is. Factors of a weight that the base
    does not train are not trained either, so that the weight stays what it is; if it trains none of the targets, as
    where several adapters share it, all factors are trained.

    A classifier's head is new and must be trained, so the adapter goes inside: `Classifier(base=LoRA(...))`.

    Args:
        spec: of the data.
        base: builds the network from the spec, for example `pretrained`.
        rank: r.
        alpha: numerator of the scaling s; by default the rank, so that s is 1 with "lora".
        targets: patterns of names of the base's weights, such as "blocks.*.attention.*"; by default every matrix
            and kernel except embeddings, learned vectors and the last linear map (`head`, or what the base's
            `linear_map` multiplies with).
        scaling: "lora" is s = alpha / r, "rslora" is s = alpha / sqrt(r).
        lr_ratio: learning rate of B, in that of A; LoRA+ recommends 16.

    Shapes: those of the base.

    Raises:
        UserError: a pattern matches no matrix, a value is out of range, or the base is a Classifier or Regressor.
    """

    def __init__(
        self,
        spec: Spec,
        base: Callable[[Spec], Autoregressor],
        rank: int = 8,
        alpha: float | None = None,
        targets: list[str] | None = None,
        scaling: Scaling = "lora",
        lr_ratio: float = 1.0,
    ) -> None:
        # An adapter freezes its base: what the base trains is asked before.
        trained: set[str] = set()

        def noted(spec: Spec) -> Autoregressor:
            net = base(spec)
            if isinstance(net, Classifier):
                kind = type(net).__name__
                raise UserError(
                    f"model.net.base: {kind} given, whose head would be frozen untrained; put LoRA inside: "
                    f"{kind}(base=LoRA(...))"
                )
            named = net.named_parameters(remove_duplicate=False)
            trained.update(name for name, p in named if p.requires_grad)
            return net

        super().__init__(spec, noted)
        require(rank >= 1, "model.net.rank", rank, "choose at least 1")
        top = rank if alpha is None else alpha
        require(math.isfinite(top) and top > 0, "model.net.alpha", alpha, "choose above 0")
        options = get_args(Scaling)
        require(scaling in options, "model.net.scaling", scaling, f"choose {' or '.join(options)}")
        require(0 < lr_ratio < math.inf, "model.net.lr_ratio", lr_ratio, "choose above 0")
        self.rank, self.lr_ratio = rank, lr_ratio
        self.scale = top / (rank if scaling == "lora" else math.sqrt(rank))
        matrices = dict(_matrices(self.base))
        self.names = _chosen(self.base, matrices, targets)
        self.low_rank = nn.Module()
        for name in self.names:
            rows, columns = matrices[name].flatten(1).shape
            _nested(self.low_rank, name).register_parameter("A", _empty(rank, columns))
            _nested(self.low_rank, name).register_parameter("B", _empty(rows, rank))
            if trained.intersection(self.names) and name not in trained:
                self.low_rank.get_submodule(name).requires_grad_(False)
        self.reset()

    def reset(self) -> None:
        """B = 0, so that the network is its base, and A uniform within 1 / sqrt(columns)."""
        for _, a, b in self._pairs():
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
            nn.init.zeros_(b)

    def _pairs(self) -> Iterator[tuple[str, Any, Any]]:
        """Name of the weight, A (r, columns) and B (rows, r)."""
        for name in self.names:
            pair = self.low_rank.get_submodule(name)
            yield name, pair.A, pair.B

    def effective(self) -> dict[str, Tensor]:
        found = {}
        for name, a, b in self._pairs():
            weight = self.base.get_parameter(name)
            if weight.dtype in (torch.bfloat16, torch.float16):  # rounded once, after the sum
                exact = weight.float() + self.scale * (b.float() @ a.float()).view(weight.shape)
                found[name] = exact.to(weight.dtype)
            else:
                found[name] = weight + self.scale * (b @ a).view(weight.shape)
        return found

    def learning_rate_factors(self) -> dict[str, float]:
        """Factors of the learning rate by the names of this module's parameters."""
        return {f"low_rank.{name}.B": self.lr_ratio for name in self.names}

    def merged(self) -> Autoregressor:
        """A network like the base with the effective weights: it needs no adapter any longer.

        Raises:
            UserError: an adapted weight is tied to one that is not adapted, which a merged network cannot keep apart.
        """
        net, weights = deepcopy(self.base), self._computed()
        own = dict(self.base.named_parameters(remove_duplicate=False))
        for name in weights:
            twins = [n for n, p in own.items() if p is own[name] and n != name]
            if twins:
                raise UserError(
                    f"model.net.targets: {name} is tied to {twins[0]}, so it cannot be merged alone; "
                    "leave it out of targets, or keep the adapter"
                )
        with torch.no_grad():
            for name, weight in weights.items():
                net.get_parameter(name).copy_(weight)
        return net


def _empty(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(rows, columns))


def _matrices(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Matrices and kernels by name, of tied ones both names."""
    for name, weight in net.named_parameters(remove_duplicate=False):
        if weight.ndim >= 2:
            yield name, weight


def _chosen(
    net: Autoregressor, matrices: dict[str, Tensor], targets: list[str] | None
) -> list[str]:
    """Names of the weights that are adapted, in the order of the network."""
    if targets is None:
        features: Any = net  # `linear_map` is offered by networks of several rooms
        last = features.linear_map()[0] if hasattr(net, "linear_map") else None
        chosen = [n for n, w in matrices.items() if w is not last and _adapted_by_default(net, n)]
        if not chosen:
            raise UserError(
                f"model.net.base: {type(net).__name__} has no matrix to adapt; choose another network, or targets"
            )
        return chosen
    for pattern in targets:
        if not any(fnmatchcase(name, pattern) for name in matrices):
            some = ", ".join(list(matrices)[:6])
            raise UserError(
                f"model.net.targets: {pattern!r} matches no matrix of {type(net).__name__}; choose among {some}, ..."
            )
    if not targets:
        raise UserError("model.net.targets: [] adapts nothing; give a pattern, or leave it out")
    return [name for name in matrices if any(fnmatchcase(name, p) for p in targets)]


def _adapted_by_default(net: Autoregressor, name: str) -> bool:
    parent, _, last = name.rpartition(".")
    module = net.get_submodule(parent)
    if isinstance(module, nn.Embedding) or (parent == "head" and isinstance(module, nn.Linear)):
        return False
    return (
        "weight" in last or last == "state"
    )  # the recurrent kernels of Row LSTM and Diagonal BiLSTM


def _nested(module: nn.Module, name: str) -> nn.Module:
    """The module at a dotted name, made if it is missing."""
    for part in name.split("."):
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    return module
