"""Write formulae as MathML, which browsers draw themselves: no script and no font is loaded."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import SphinxError


def _write(writer: Any, node: nodes.math | nodes.math_block, block: bool) -> None:
    """Convert one formula; a command that the converter does not know fails the build."""
    # The converter knows one kind of dots.
    formula = re.sub(r"\\dots(?![a-zA-Z])", r"\\ldots", node.astext())
    try:
        mathml = tex2mathml(formula, as_block=block)
    except MathError as error:
        raise SphinxError(f"{node.source}:{node.line}: {error} in {node.astext()!r}") from None
    writer.body.append(f'<div class="math">{mathml}</div>' if block else mathml)
    raise nodes.SkipNode


def inline(writer: Any, node: nodes.math) -> None:
    """A formula within a line."""
    _write(writer, node, block=False)


def display(writer: Any, node: nodes.math_block) -> None:
    """A formula on lines of its own."""
    _write(writer, node, block=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer; Sphinx prefers it to MathJax."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
