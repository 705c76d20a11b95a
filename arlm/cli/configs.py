"""`arlm configs [NAME]`: list the configurations that ship with arlm, or print one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arlm.cli.messages import nearest
from arlm.cli.parser import Parser
from arlm.errors import UserError
from arlm.inference.configurations import FRAGMENTS, about, shipped


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser("configs", "List the configurations that ship with arlm, or print one.")
    parser.add_argument("name", nargs="?", help="print this one, such as docs_transformer")
    options = parser.parse(arguments)
    runs = shipped()
    fragments = {kind: shipped(kind) for kind in FRAGMENTS}
    if options.name is None:
        print(listing())
        return
    files = [files[options.name] for files in (runs, *fragments.values()) if options.name in files]
    if not files:
        names = {name for found in (runs, *fragments.values()) for name in found}
        mend = nearest(options.name, sorted(names), "`arlm configs` lists them")
        raise UserError(f"name: {options.name!r} is no configuration of arlm; {mend}")
    print("\n".join(path.read_text().strip() for path in files))


def listing() -> str:
    """Configurations that can be run, by folder, with training time and result; then the fragments by option."""
    runs = shipped()
    width = max(map(len, runs)) + 2
    lines = [
        "Configurations for `arlm fit --config NAME`: training time on 2 cores, and result.",
        "",
    ]
    for folder in sorted({path.parent.name for path in runs.values()}):
        lines.append(f"{folder}:")
        for name, path in runs.items():
            if path.parent.name == folder:
                lines.append(f"  {name:{width}}{_columns(path)}".rstrip())
        lines.append("")
    lines.append(
        "Parts for one option, such as `--data python_docs`; files of your own work as well:"
    )
    for kind in FRAGMENTS:
        lines.append(f"  {'--' + kind:19}{', '.join(shipped(kind))}")
    return "\n".join(lines)


def _columns(path: Path) -> str:
    """Time, result and note; nothing for a file of the user's own that does not say them."""
    try:
        found = about(path)
    except ValueError:
        return ""
    return f"{found.time:11}{found.result:16}{found.note}"
