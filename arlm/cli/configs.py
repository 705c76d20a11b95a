"""`arlm configs [NAME]`: list the configurations that ship with arlm, or print one."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Configurations that can be run, by domain, with training time and result; then the fragments by option."""
    runs = shipped()
    width = max(map(len, runs)) + 2
    lines = [
        "Configurations for `arlm fit --config NAME`: training time on 2 cores, and result.",
        "",
    ]
    for domain in ("text", "translation", "images"):
        lines.append(f"{domain}:")
        for name, path in runs.items():
            if path.parent.name == domain:
                found = about(path)
                lines.append(f"  {name:{width}}{found.time:11}{found.result:16}{found.note}")
        lines.append("")
    lines.append(
        "Parts for one option, such as `--data python_docs`; files of your own work as well:"
    )
    for kind in FRAGMENTS:
        lines.append(f"  {'--' + kind:19}{', '.join(shipped(kind))}")
    return "\n".join(lines)
