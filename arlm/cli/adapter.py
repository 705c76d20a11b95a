"""`arlm adapter RUN --out FILE`: write the adapter of a run alone, without its base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser
from arlm.errors import UserError


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        "adapter",
        "Write the adapter of a run, such as LoRA, as a file of its own, without its base.",
    )
    parser.add_argument("run", help="the folder or the name of a run, or a .ckpt file")
    parser.add_argument(
        "--out",
        required=True,
        help="the file, such as adapter.ckpt; other verbs take it as --adapter, with the base's run",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module, package or FILE.py whose classes the checkpoint may name, beside arlm's own",
    )
    options = parser.parse(arguments)

    with quick_imports():
        from arlm.adapters.files import save_adapter
        from arlm.checkpoints import load

    out = Path(options.out)
    if out.is_dir():
        raise UserError(f"--out: '{out}' is a folder; give a file, such as adapter.ckpt")
    print(save_adapter(out, load(options.run, options.trust).net, "--out"))
