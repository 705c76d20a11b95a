"""HTML pages from the templates in `arlm/reports/templates/`: self-contained, light and dark, one style sheet."""

from __future__ import annotations

import sys
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from arlm import __version__

TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # late: few verbs write pages

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, title: str, command: str, **values: Any) -> str:
    """A whole page; strings are escaped, except those that a template marks as HTML.

    Args:
        template: name of a file in `arlm/reports/templates/`.
        title: of the page.
        command: that made the page, for its footer.
        values: what the template shows.
    """
    versions = f"arlm {__version__}, Python {sys.version.split()[0]}"
    footer = {"date": f"{datetime.now():%Y-%m-%d %H:%M}", "versions": versions, "command": command}
    return fragment(template, title=title, footer=footer, **values)


def fragment(template: str, **values: Any) -> str:
    """Part of a page."""
    return str(_environment().get_template(template).render(**values))
