"""Pictures of attention: the weights of each token of a translation over its source."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from arlm.core import Autoregressor, device_of

CELL = 0.28  # inches per token


@runtime_checkable
class HasAttention(Protocol):
    """A network that can return its attention to the context."""

    def attention_weights(self, tokens: Tensor, context: Tensor | None = None) -> Tensor | None:
        """Attention weights over the context that predict each token, (B, T, S); each row sums to 1.

        None for a network that was built without attention.
        """


def attention_of(net: Autoregressor, source: Tensor, target: Tensor) -> Tensor | None:
    """Attention of a target (T,) to its source (S,), as (T, S); None for a network without attention."""
    if not isinstance(net, HasAttention):
        return None
    with torch.inference_mode():
        device = device_of(net)
        weights = net.attention_weights(target[None].to(device), source[None].to(device))
    return None if weights is None else weights[0].float().cpu()


def attention_maps(
    net: Autoregressor,
    translated: Sequence[tuple[Tensor, Any]],
    source_names: Callable[[Tensor], list[str]],
    target_names: Callable[[Tensor], list[str]],
) -> bytes | None:
    """Heat maps of translated sentences side by side, white for 0 and black for 1, as PNG.

    Args:
        net: the network.
        translated: sources (S,), each with an object that has `tokens` (T,), such as a Translation.
        source_names, target_names: names of tokens, for the axes.

    Returns: None for a network without attention.
    """
    from matplotlib.figure import Figure  # late: a translation needs no picture

    parts = []
    for source, translation in translated:
        weights = attention_of(net, source, translation.tokens)
        if weights is None:
            return None
        parts.append((weights, source_names(source), target_names(translation.tokens)))
    columns = min(2, len(parts))
    rows = math.ceil(len(parts) / columns)
    wide = max(w.shape[1] for w, *_ in parts) * CELL + 1.5
    high = max(w.shape[0] for w, *_ in parts) * CELL + 1.5
    figure = Figure(figsize=(columns * wide, rows * high), layout="constrained")
    for index, (weights, sources, targets) in enumerate(parts):
        panel = figure.add_subplot(rows, columns, index + 1)
        panel.imshow(weights.numpy(), cmap="Greys", vmin=0, vmax=1)
        panel.set_xticks(range(len(sources)), [axis_label(s) for s in sources], rotation=90)
        panel.set_yticks(range(len(targets)), [axis_label(t) for t in targets])
        panel.xaxis.tick_top()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return file.getvalue()


def axis_label(text: str) -> str:
    """A token as an axis label: newlines become visible, and `$` does not start a formula."""
    arrow = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"
    return text.replace("\n", arrow).replace("$", r"\$") or "?"
