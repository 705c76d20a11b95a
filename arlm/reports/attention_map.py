"""Pictures of attention: where each token of a translation looked in its source."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from arlm.core import Autoregressor, device_of
from arlm.domains import TranslationDomain
from arlm.reports.images import write_bytes

CELL = 0.28  # inches a token


def weights_of(net: Autoregressor, source: Tensor, target: Tensor) -> Tensor | None:
    """Attention of a target (T,) to its source (S,), (T, S); None for a network without."""
    with torch.inference_mode():
        device = device_of(net)
        weights = net.attention_weights(target[None].to(device), source[None].to(device))
    return None if weights is None else weights[0].float().cpu()


def maps(
    net: Autoregressor, domain: TranslationDomain, shown: Sequence[tuple[Tensor, Any]]
) -> bytes | None:
    """Heat maps of some pairs side by side, white for none and black for all, as a PNG; None without any.

    Args:
        shown: sources (S,), each with what has `tokens` (T,): a translation.
    """
    parts = []
    for source, translation in shown:
        weights = weights_of(net, source, translation.tokens)
        if weights is None:
            return None
        names = (
            domain.pieces(source, domain.source_text),
            domain.pieces(translation.tokens, domain.target_text),
        )
        parts.append((weights, *names))
    columns = min(2, len(parts))
    rows = math.ceil(len(parts) / columns)
    wide = max(w.shape[1] for w, *_ in parts) * CELL + 1.5
    high = max(w.shape[0] for w, *_ in parts) * CELL + 1.5
    figure = Figure(figsize=(columns * wide, rows * high), layout="constrained")
    for index, (weights, sources, targets) in enumerate(parts):
        panel = figure.add_subplot(rows, columns, index + 1)
        panel.imshow(weights.numpy(), cmap="Greys", vmin=0, vmax=1)
        panel.set_xticks(range(len(sources)), [shown_token(s) for s in sources], rotation=90)
        panel.set_yticks(range(len(targets)), [shown_token(t) for t in targets])
        panel.xaxis.tick_top()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return file.getvalue()


def shown_token(text: str) -> str:
    """A token on an axis: white space is told, and nothing is a formula."""
    return (
        text.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}").replace("$", r"\$") or "?"
    )


def write_maps(
    net: Autoregressor,
    domain: TranslationDomain,
    shown: Sequence[tuple[Tensor, Any]],
    path: Path,
) -> Path | None:
    """`maps` as a file."""
    picture = maps(net, domain, shown)
    return None if picture is None else write_bytes(picture, path.with_suffix(".png"))
