"""Fail the build if a page would load a script, a style, a font or a picture from the network."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

# Attributes whose address a browser loads by itself. A link (<a href>) is loaded when a reader follows it.
LOADED = {"src", "srcset", "poster", "data", "action", "background"}
REMOTE = re.compile(r"^\s*(?:https?:|wss?:|//)", re.I)
IN_STYLE = re.compile(r"""(?:url\(|@import)\s*['"]?\s*((?:https?:)?//[^'")\s]+)""", re.I)
IN_SCRIPT = re.compile(
    r"""(?:\bimport\b|\bfetch\s*\(|\brequire\s*\(|\.src\s*=|importScripts\()\s*['"`(]*((?:https?:)?//[^'"`)\s]+)"""
)


class _Addresses(HTMLParser):
    """Collects the addresses that a browser loads without being asked."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            loads = name in LOADED or (tag in ("link", "image", "use") and name.endswith("href"))
            if loads and value and REMOTE.match(value):
                self.found.append(value)
            if name == "style" and value:
                self.found += IN_STYLE.findall(value)


def remote_addresses(path: Path) -> list[str]:
    """Addresses on the network that the page, style sheet or script at `path` loads."""
    content = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".css":
        return IN_STYLE.findall(content)
    if path.suffix == ".js":
        return IN_SCRIPT.findall(content)
    parser = _Addresses()
    parser.feed(content)
    inside = "\n".join(re.findall(r"<style.*?</style>|<script.*?</script>", content, flags=re.S))
    return parser.found + IN_STYLE.findall(inside) + IN_SCRIPT.findall(inside)


def check(app: Sphinx, exception: Exception | None) -> None:
    """Read every file that was built; name the first address of each file that has one."""
    if exception is not None or app.builder.format != "html":
        return
    files = [f for f in Path(app.outdir).rglob("*") if f.suffix in (".html", ".css", ".js", ".svg")]
    found = {f: addresses for f in files if (addresses := remote_addresses(f))}
    if found:
        lines = [
            f"{file.relative_to(app.outdir)} loads {names[0]}" for file, names in found.items()
        ]
        raise SphinxError("pages must load nothing from the network:\n" + "\n".join(lines))


def setup(app: Sphinx) -> dict[str, bool]:
    """Check after the pages are written."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
