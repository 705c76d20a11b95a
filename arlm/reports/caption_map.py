"""Pictures of captions: canvases with their captions, and the attention of each word over its canvas."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from arlm.reports.attention_map import axis_label

PANEL = 1.25  # inches of a picture of the attention
CANVAS = 1.9  # inches of a picture with its caption
HEAT = colormaps["inferno"]
DIMMED = 0.35  # brightness of the picture below a heat map


def words_of(pieces: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Words of a text, each with the indices of its tokens, from the text that each token adds."""
    words: list[tuple[str, list[int]]] = []
    for index, piece in enumerate(pieces):
        before = words[-1][0] if words else ""
        between = piece[:1].isspace() or before[-1:].isspace()
        if not words or (between and before.strip()):
            words.append(("", []))
        text, tokens = words.pop()
        words.append((text + piece, [*tokens, index]))
    return [(text.strip(), tokens) for text, tokens in words]


def heated(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A picture with weights as a heat map over it.

    Args:
        picture: (H, W, C) uint8, C 1 or 3.
        weights: (h, w), where h divides H and w divides W; the largest is drawn at full strength.

    Returns: (H, W, 3) from 0 to 1.
    """
    tall, wide = picture.shape[0] // weights.shape[0], picture.shape[1] // weights.shape[1]
    strength = (
        (weights / max(float(weights.max()), 1e-9)).repeat(tall, 0).repeat(wide, 1)[..., None]
    )
    heat = HEAT(strength[..., 0])[..., :3]
    return np.broadcast_to(picture / 255 * DIMMED, heat.shape) * (1 - strength) + heat * strength


def attention_strips(
    rows: Sequence[tuple[Tensor, Sequence[tuple[str, np.ndarray]]]],
) -> bytes:
    """A row for each picture: the picture, then one copy for each word, with the word's attention over it; PNG.

    Args:
        rows: pictures (H, W, C) uint8, each with its words and their weights (h, w).
    """
    columns = 1 + max(len(words) for _, words in rows)
    size = columns * PANEL, len(rows) * (PANEL + 0.25)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for (picture, words), row in zip(rows, panels, strict=True):
        native = picture.numpy()
        for panel in row:
            panel.axis("off")
        draw(row[0], native)
        for panel, (word, weights) in zip(row[1:], words, strict=False):
            panel.imshow(heated(native, weights), interpolation="nearest")
            panel.set_title(axis_label(word), fontsize=11)
    return encoded(figure, 100)


def captioned(
    pictures: Sequence[Tensor], references: Sequence[str], captions: Sequence[str]
) -> bytes:
    """Pictures (H, W, C) uint8 with their captions; a wrong one is red, above the reference; PNG."""
    columns = min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    size = columns * CANVAS, rows * (CANVAS + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    shown_pairs = zip(pictures, references, captions, strict=True)
    for index, (picture, reference, caption) in enumerate(shown_pairs, start=1):
        panel = figure.add_subplot(rows, columns, index, xticks=[], yticks=[])
        draw(panel, picture.numpy())
        right = caption == reference
        shown = caption if right else f"{caption}\n(not: {reference})"
        lines = [part for line in shown.split("\n") for part in textwrap.wrap(line, 26)]
        label = "\n".join(map(axis_label, lines))
        colour = "black" if right else "#c0302c"
        panel.set_xlabel(label, fontsize=7, color=colour)
    return encoded(figure, 110)


def draw(panel: Axes, picture: np.ndarray) -> None:
    """Show a picture (H, W, C) uint8."""
    shown = picture.squeeze(-1) if picture.shape[-1] == 1 else picture
    panel.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def encoded(figure: Figure, dpi: int) -> bytes:
    """A figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()
