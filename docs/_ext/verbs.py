"""`{verb} NAME` shows what `arlm NAME --help` prints when the pages are built, so that it cannot go stale."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from unittest.mock import patch

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from arlm.__main__ import main


def help_of(*arguments: str) -> str:
    """What the command prints on stdout, 96 columns wide."""
    out = io.StringIO()
    argv = patch.object(sys, "argv", ["arlm", *arguments])
    with argv, patch.dict(os.environ, {"COLUMNS": "96"}), redirect_stdout(out):
        try:
            code: object = main()
        except SystemExit as end:
            code = end.code or 0
    assert code == 0, f"arlm {' '.join(arguments)} ended with {code}"
    return out.getvalue()


class Verb(SphinxDirective):
    """The help of a verb as a literal block; without an argument, that of `arlm` itself."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        arguments = [*self.arguments, "--help"]
        text = help_of(*arguments)
        block = nodes.literal_block(text, text, language="text")
        self.set_source_info(block)
        return [block]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("verb", Verb)
    # The help changes without a change of the page.
    app.connect("env-get-outdated", lambda *_: ["command-line/verbs", "command-line/fit"])
    return {"parallel_read_safe": True, "parallel_write_safe": True}
