"""Bounds on the memory that a network takes while it is built from a description."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from arlm.checkpoints.specs import OLDER
from arlm.errors import UserError

# Tied parameters are made before they are replaced, and there are tables beside the weights.
TIMES = 10
# Operations without tensors; their result has at most as many numbers as the product of (each integer argument + 1).
MAKING = ("empty", "zeros", "ones", "full", "rand", "randn", "randperm", "arange", "linspace")
COPYING = ("tensor", "as_tensor", "from_numpy")  # as large as what they are given
JOINING = ("cat", "concat", "stack")  # as large as their arguments together
MORE = 10**6  # numbers that a small network may take beside its weights


@contextmanager
def at_most(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Raise a UserError for a network that is built with far more parameters or buffers than `weights` holds.

    The sizes in a crafted or damaged description could otherwise fill the memory. Parameters are counted when
    they are registered; the result of every operation is measured before the operation takes its memory.
    """
    parameters_left = TIMES * len(weights) + 1000
    most = numbers_left = TIMES * sum(weight.numel() for weight in weights.values()) + MORE

    def count(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal parameters_left, numbers_left
        parameters_left -= 1
        numbers_left -= 0 if parameter is None else parameter.numel()
        if min(parameters_left, numbers_left) < 0:
            raise _much_larger()

    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        with SmallResults(most):
            yield
    finally:
        for hook in hooks:
            hook.remove()


class SmallResults(TorchFunctionMode):
    """Refuse operations with a result of more than `most` numbers.

    Where sizes and arguments together could give so many, the operation is run on the meta device first, which
    computes shapes and takes no memory. What cannot run there is just run.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__")
        reads = name in ("__get__", "__set__")  # an attribute, such as `shape`
        if not (in_place or reads) and self._may_be_large(name, tree_leaves((args, kwargs))):
            self._measure(func, args, kwargs)
        return func(*args, **kwargs)

    def _may_be_large(self, name: str, leaves: list[Any]) -> bool:
        """Whether a result could have more than `most` numbers, by a bound that costs no time."""
        sizes = [leaf.numel() for leaf in leaves if isinstance(leaf, Tensor)]
        plain = name != "arange" or not any(isinstance(leaf, float) for leaf in leaves)
        if name in COPYING or (not sizes and not (name in MAKING and plain)):
            return name not in COPYING
        if name in JOINING:
            return sum(sizes) > self.most
        numbers = (abs(leaf) + 1 for leaf in leaves if type(leaf) is int)
        return math.prod(sizes) * math.prod(numbers) > self.most

    def _measure(self, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
        args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
        try:
            with torch.device("meta"):  # of what is made without arguments
                found = func(*args, **kwargs | ({"device": "meta"} if "device" in kwargs else {}))
        except Exception:  # not computed on this device, or wrong: then it raises again
            return
        results = (part for part in tree_leaves(found) if isinstance(part, Tensor))
        if sum(result.numel() for result in results) > self.most:
            raise _much_larger()


def _much_larger() -> UserError:
    return UserError(
        f"checkpoint: its weights do not fit the much larger network that it names; {OLDER}"
    )
