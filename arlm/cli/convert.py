"""`arlm convert RUN --out FILE`: write a sharded checkpoint as one file, with the optimizer's state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from arlm.cli.imports import quick_imports
from arlm.cli.parser import Parser
from arlm.errors import UserError


def main(arguments: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        "convert", "Write a sharded checkpoint, of --trainer.strategy fsdp2, as one file."
    )
    parser.add_argument("run", help="the folder or the name of a run, or a .ckpt folder")
    parser.add_argument(
        "--out", required=True, help="the file, such as model.ckpt; every verb and `fit` read it"
    )
    options = parser.parse(arguments)

    with quick_imports():
        from arlm import checkpoints
        from arlm.checkpoints.archive import user_errors
        from arlm.checkpoints.save import write
        from arlm.checkpoints.sharded import assembled, is_sharded

    path, out = checkpoints.find(options.run), Path(options.out)
    if not is_sharded(path):
        raise UserError(f"run: '{path}' is one file already; use it as it is")
    if out.is_dir():
        raise UserError(f"--out: '{out}' is a folder; give a file, such as model.ckpt")
    with user_errors(path):
        contents = assembled(path, checkpoints.read(path))
    print(write(out, contents, "--out"))
