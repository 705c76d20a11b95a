"""The attention weights of a network's forward pass, layer by layer and head by head.

An attention layer offers them by `weights`, which takes the arguments of its `forward`; a network needs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from arlm.core import Autoregressor, device_of
from arlm.layers.prefix import TrainedPrefix


@runtime_checkable
class HasWeights(Protocol):
    """An attention layer that can say by which weights it averages its values.

    `queries_of` and `keys_of` name what asks and what is read: "tokens" (a row's inputs: the start, then all tokens
    but the last), "context", "pixels", or, where a source is the beginning of the row, "source and tokens" (the source,
    then the row's inputs) or "row of source and tokens" (the start, the source, a separator, then all tokens but the
    last).
    """

    queries_of: str
    keys_of: str

    def weights(self, *inputs: Any) -> Tensor:
        """Weights (B, heads, queries, keys) of `forward`, for the same arguments; rows sum to 1, or to 0."""


@dataclass(frozen=True)
class Attention:
    """The weights of one layer."""

    KINDS: ClassVar = {
        ("tokens", "context"): "to the source",
        ("context", "context"): "of the source",
    }

    layer: str  # name of the module in the network
    weights: Tensor  # (heads, queries, keys), float64 for a float64 network, else float32
    queries_of: str
    keys_of: str

    @property
    def kind(self) -> str:
        """What attends to what, for headings."""
        return self.KINDS.get((self.queries_of, self.keys_of), "self-attention")


def attention_of_layers(
    net: Autoregressor, tokens: Tensor, context: Tensor | None = None
) -> list[Attention]:
    """The attention of every layer for one row, in the order in which the layers run.

    Args:
        net: the network, in eval mode.
        tokens: (T,) int64.
        context: (S,) int64, or None.

    Returns: [] for a network without attention.
    """
    found: dict[str, list[Tensor]] = {}
    layers: dict[str, Any] = {
        name: module for name, module in net.named_modules() if isinstance(module, HasWeights)
    }
    prompts: list[Any] = []  # the trained prompt that is running: its calls are not the row's
    hooks = [
        layer.register_forward_hook(_record(found.setdefault, name, prompts))
        for name, layer in layers.items()
        if isinstance(layer, nn.Module)
    ]
    for module in net.modules():
        if isinstance(module, TrainedPrefix):
            hooks.append(module.register_forward_pre_hook(lambda m, _: prompts.append(m)))
            hooks.append(module.register_forward_hook(lambda *_: prompts.clear()))
    device = device_of(net)
    try:
        with torch.inference_mode():
            net(tokens[None].to(device), None if context is None else context[None].to(device))
    finally:
        for hook in hooks:
            hook.remove()
    source = 0 if context is None else len(context)
    rows = {
        "tokens": len(tokens),
        "context": source,
        "source and tokens": source + len(tokens),
        "row of source and tokens": source + 1 + len(tokens),
    }
    attentions = []
    for name, parts in found.items():
        layer = layers[name]
        # A recurrent decoder attends step by step; guidance runs a network twice, of which the first is kept.
        weights = torch.cat(parts, dim=2)[0, :, : rows.get(layer.queries_of)]
        at_least = torch.promote_types(weights.dtype, torch.float32)
        attentions.append(
            Attention(name, weights.to(at_least).cpu(), layer.queries_of, layer.keys_of)
        )
    return attentions


def _record(parts_of: Any, name: str, prompts: list[Any]) -> Any:
    """A hook that keeps a layer's weights, unless a trained prompt runs it."""

    def hook(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if not prompts:
            parts_of(name, []).append(layer.weights(*inputs))

    return hook
