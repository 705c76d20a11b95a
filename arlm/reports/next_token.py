"""The distribution of the next token as a picture: a panel for the network and for each processor."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from arlm.inference.next_token import Stage
from arlm.reports.attention_map import axis_label
from arlm.reports.charts import STYLE, light

ROW, WIDTH = 0.22, 3.0  # inches of a token and of a panel


def picture(stages: Sequence[Stage], tokens: Sequence[int], texts: Sequence[str]) -> bytes:
    """Bars of the probabilities of some tokens, as PNG; faint bars are those of the stage before.

    Args:
        stages: at least one, (V,) each.
        tokens: to show, the likeliest first.
        texts: of these tokens.
    """
    colours = light()
    style: Any = STYLE | {
        "text.color": colours["ink"],
        "axes.labelcolor": colours["ink"],
        "axes.edgecolor": colours["line"],
        "xtick.color": colours["ink"],
        "ytick.color": colours["ink"],
        "grid.color": colours["line"],
    }
    with matplotlib.rc_context(style):
        size = 1.0 + WIDTH * len(stages), 1.3 + ROW * len(tokens)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(stages), sharex=True, sharey=True, squeeze=False)[0]
        places = range(len(tokens))
        before = None
        for panel, stage in zip(panels, stages, strict=True):
            values = stage.log_prob[list(tokens)].exp().tolist()
            if before is not None:
                panel.barh(places, before, color=colours["line"], height=0.9)
            panel.barh(places, values, color=colours["c0"], height=0.5)
            panel.set_title("\n".join(map(axis_label, caption(stage))), fontsize=9)
            panel.set_xlabel("probability")
            panel.grid(axis="x", linewidth=0.6)
            panel.set_axisbelow(True)
            before = values
        panels[0].set_yticks(places, [axis_label(text) for text in texts], family="monospace")
        panels[0].invert_yaxis()
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def caption(stage: Stage) -> tuple[str, str]:
    """What a stage is, and what it kept: two lines."""
    share = f", tail {100 * stage.tail:.2f} %" if stage.kept < len(stage.log_prob) else ""
    kept = f"{stage.kept} of {len(stage.log_prob)} tokens{share}, {stage.bits:.2f} bits"
    return stage.name, kept
