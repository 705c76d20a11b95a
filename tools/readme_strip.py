"""Draw the picture at the head of the README from three runs: docs/strip.png.

python -m tools.readme_strip runs/digits_pixelcnn runs/dates_attention runs/docs_transformer [--out docs/strip.png]

From left to right: digits that a PixelCNN draws, after a part of their pixels; the attention of a translator of
dates to its source; a text coloured by the surprise of a transformer, -log2 p of each byte.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import arlm
from arlm.inference.items import Item, score_items
from arlm.inference.translator import Translator
from arlm.reports.attention_map import attention_of, axis_label
from arlm.reports.files import check_writable

PARTS = (0.25, 0.5, 0.75, 1.0)  # of the pixels that are drawn
DIGITS = 7
DATE = "the 22nd AUGUST of '04"
# From the held-out part of Python's language reference, as in 3.11.
TEXT = (
    "The return statement leaves the current function call with the expression list (or None) as return "
    "value. When return passes control out of a try statement with a finally clause, that finally clause "
    "is executed before really leaving the function."
)
COLUMNS = 34  # characters of a line of the text
MOST_BITS = 8.0  # surprise with the darkest colour
UNDRAWN = 0.85  # grey of pixels that are not yet drawn


def digits(panel: Axes, run: str) -> None:
    """Samples in columns; in rows, what is drawn after a part of the pixels."""
    net, _, *_ = arlm.load(run)
    tokens = arlm.generate(net, arlm.row_seeds(0, DIGITS)).tokens
    height, width, _ = net.spec.shape
    shades = 1 - tokens.view(DIGITS, height * width) / (net.spec.vocab_size - 1)
    gap = torch.ones(DIGITS, height, 1)
    rows = []
    for part in PARTS:
        drawn = torch.arange(height * width) < part * height * width
        images = shades.where(drawn, torch.tensor(UNDRAWN)).view(DIGITS, height, width)
        row = torch.cat([images, gap], 2).permute(1, 0, 2).flatten(1)
        rows += [row, torch.ones(1, row.shape[1])]
    panel.imshow(torch.cat(rows), cmap="gray", vmin=0, vmax=1)
    panel.set_title("a PixelCNN draws pixel by pixel")
    panel.axis("off")


def attention(panel: Axes, run: str) -> None:
    """The weights of each token of a translation over its source, white for 0 and black for 1."""
    net, domain, *_ = arlm.load(run)
    given: Any = domain
    translator = Translator(net, given, beam=1)
    source = translator.encode(DATE, "the date")
    target = translator([source])[0][0].tokens
    weights = attention_of(net, source, target)
    assert weights is not None
    sources = given.pieces(source, given.source)
    targets = given.pieces(target, given.target_tokenizer)
    panel.imshow(weights, cmap="Greys", vmin=0, vmax=1)
    panel.set_xticks(range(len(sources)), [axis_label(s) for s in sources], family="monospace")
    panel.set_yticks(range(len(targets)), [axis_label(t) for t in targets], family="monospace")
    panel.tick_params(length=0)
    panel.set_title("an LSTM attends to a date")


def surprise(panel: Axes, run: str) -> None:
    """Each character on a background that is darker the more bits it costs."""
    net, domain, *_ = arlm.load(run)
    lines = textwrap.wrap(TEXT, COLUMNS)
    text = "\n".join(lines)
    scores = score_items(net, [Item("text", domain.encode(text))], 0)
    bits = (next(iter(scores)).nats / torch.tensor(2.0).log()).tolist()
    row = column = 0
    for character, cost in zip(text, bits, strict=True):
        if character == "\n":
            row, column = row + 1, 0
            continue
        shade = min(cost / MOST_BITS, 1)
        panel.add_patch(
            Rectangle((column, -row - 1), 1, 1, color=(0.95, 0.55, 0.1, shade), linewidth=0)
        )
        panel.text(
            column + 0.5, -row - 0.55, character, family="monospace", ha="center", va="center"
        )
        column += 1
    panel.set(xlim=(0, COLUMNS), ylim=(-len(lines), 0))
    panel.set_title("a transformer's surprise, up to 8 bits a byte")
    panel.axis("off")


def main() -> None:
    """Draw the three panels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("digits", help="run of a pixel network on digits")
    parser.add_argument("dates", help="run of a translator with attention")
    parser.add_argument("text", help="run of a language model of bytes")
    parser.add_argument("--out", type=Path, default=Path("docs/strip.png"))
    options = parser.parse_args()
    check_writable(options.out)
    figure = Figure(figsize=(13, 2.9), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=[1.75, 1.75, 2.1])
    with torch.inference_mode():
        digits(panels[0], options.digits)
        attention(panels[1], options.dates)
        surprise(panels[2], options.text)
    figure.savefig(options.out, dpi=90)
    print(options.out)


if __name__ == "__main__":
    main()
