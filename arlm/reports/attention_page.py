"""The attention of every layer and head as a picture and as a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from arlm.core import Autoregressor
from arlm.errors import UserError
from arlm.inference.attention import Attention, attention_of_layers
from arlm.inference.items import Item
from arlm.reports.attention_map import axis_label
from arlm.reports.page import render
from arlm.reports.shown import data_url
from arlm.reports.view import View

LONGEST = 1024  # tokens whose attention is shown
LABELLED = 40  # tokens that are named on the axes of the picture
START, SEPARATOR = "<start>", "<sep>"
Labels = dict[str, tuple[list[str], list[str]]]  # of queries and of keys, by what they are


def attend(net: Autoregressor, item: Item) -> list[Attention]:
    """The attention of all layers, with one-line errors for what cannot be shown."""
    count, longest = len(item.tokens), min(net.max_length or LONGEST, LONGEST)
    if not 0 < count <= longest:
        raise UserError(
            f"TEXT: it has {count} tokens; attention is shown of 1 to {longest} of them"
        )
    found = attention_of_layers(net, item.tokens, item.context)
    if not found:
        raise UserError(f"RUN: {type(net).__name__} was trained without attention; choose another")
    return found


def labels_of(item: Item, view: View, found: Sequence[Attention]) -> Labels:
    """Names of the queries and of the keys; a token's query is named by what it predicts, a pixel by its tokens."""
    own = view.pieces(item.tokens)
    channels = tokens_of_query(found, len(own))
    pixels = [" ".join(own[i : i + channels]) for i in range(0, len(own), channels)]
    named = {"tokens": (own, [START, *own[:-1]]), "pixels": (pixels, pixels)}
    if item.context is not None:
        source = view.context_pieces(item.context)
        named["context"] = (source, source)
        named["source and tokens"] = ([*source, *own], [*source, START, *own[:-1]])
        whole = [*source, SEPARATOR, *own]
        named["row of source and tokens"] = (whole, [START, *whole[:-1]])
    return named


def tokens_of_query(found: Sequence[Attention], tokens: int) -> int:
    """How many of a row's tokens are one query: the channels, where pixels attend; else 1."""
    pixels = [one.weights.shape[1] for one in found if one.queries_of == "pixels"]
    return tokens // pixels[0] if pixels else 1


def picture(found: Sequence[Attention], labels: Labels) -> bytes:
    """A heat map of each head, a row for each layer, white for 0 and black for 1, as PNG."""
    from matplotlib.figure import Figure  # late: the page needs no picture

    heads = max(len(one.weights) for one in found)
    size = min(5.0, max(2.2, 0.16 * max(one.weights.shape[1] for one in found)))
    figure = Figure(figsize=(heads * size, len(found) * size), layout="constrained")
    panels = figure.subplots(len(found), heads, squeeze=False)
    for one, row in zip(found, panels, strict=True):
        for index, panel in enumerate(row):
            if index >= len(one.weights):
                panel.axis("off")
                continue
            panel.imshow(one.weights[index].numpy(), cmap="Greys", vmin=0, vmax=1)
            panel.set_title(f"{one.layer}, head {index + 1}", fontsize=7)
            asks, reads = labels[one.queries_of][0], labels[one.keys_of][1]
            for axis, names in ((panel.xaxis, reads), (panel.yaxis, asks)):
                shown = [axis_label(name) for name in names] if len(names) <= LABELLED else []
                axis.set_ticks(range(len(shown)), shown, fontsize=6)
            panel.tick_params(axis="x", rotation=90)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def page(found: Sequence[Attention], labels: Labels, view: View, title: str, command: str) -> str:
    """All heads as pictures; of the chosen one, the weights of each token."""
    layers = [
        {
            "name": one.layer,
            "kind": one.kind,
            "asks": one.queries_of,
            "reads": one.keys_of,
            "heads": [data_url(_grey(head.numpy())) for head in one.weights],
        }
        for one in found
    ]
    channels = tokens_of_query(found, len(labels["tokens"][0]))
    side = {
        "tokens": view.columns,
        "pixels": view.columns and view.columns // channels,
        "context": view.context_columns,
    }
    side |= dict.fromkeys(labels.keys() - side.keys())
    given: dict[str, Any] = {"layers": layers, "labels": labels, "columns": side}
    return render("attention.html", title, command, **given)


def _grey(weights: np.ndarray) -> bytes:
    """Weights (queries, keys) as a PNG with one pixel each, white for 1."""
    file = io.BytesIO()
    Image.fromarray((weights * 255).round().astype(np.uint8)).save(file, "PNG", optimize=True)
    return file.getvalue()
