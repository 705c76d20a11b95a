"""Faults that are planted in arlm, for `test_faults.py`: `python tests/tools/planted.py FOLDER` prints what was found of each.

Prints JSON: for each planted fault, the harm that the attack counts. It runs in a process of its own, which forks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch

from arlm.data.order import ResumableLoader
from tools.faults import crafted, damage
from tools.faults.children import Child, import_arlm, run
from tools.faults.families import FAMILIES
from tools.faults.references import Reference, finish, judged, reference
from tools.faults.table import Table
from tools.faults.unsynced import Disk, operations

FAULT = "planted"


def harms(inject: Callable[[Table], None], whole: Reference) -> dict[str, int]:
    """The harm of one row."""
    table = Table()
    inject(table)
    return {kind: count for kind, count in table.row(FAULT, whole.name).harms.items() if count}


def main() -> None:
    """Plant each fault."""
    work = Path(sys.argv[1])
    import_arlm()
    table = Table()
    whole = reference(table, work / "references", FAMILIES[-1])
    half = operations(whole, work / "run") // 2

    def crash(table: Table) -> None:
        """Crash in the middle of a run, and finish it."""
        folder = whole.copy(work / "run")
        ended = run(whole.command, folder, prepare=Disk(folder, half, zeros=True).install)
        assert ended.code == -9, ended.err
        assert any(folder.glob("runs/**/last.ckpt"))
        finish(table, FAULT, whole, folder, strict=False)

    def hang(table: Table) -> None:
        ended = Child([], work, call=lambda: time.sleep(60) or 0).wait(limit=0.5)
        table.harm(FAULT, whole.name, *(judged(ended) or ("wrong", "unseen")))

    def execute(table: Table) -> None:
        path = work / "run" / "evil.ckpt"
        torch.save(crafted.CALLS["os.system"], path)
        ended = run(["show", "evil.ckpt"], path.parent)
        table.harm(
            FAULT,
            whole.name,
            *(damage.verdict(damage.Result(ended, ""), None, path.parent) or ("wrong", "unseen")),
        )

    restore, load = ResumableLoader.load_state_dict, torch.load

    def skip(self: ResumableLoader, state: dict[str, int]) -> None:
        restore(self, {"yielded": state["yielded"] + 1})

    def trusting(*args: Any, **options: Any) -> Any:
        options |= {"weights_only": False, "mmap": False}
        return load(*args, **options)

    found = {"none": harms(crash, whole), "reference": [row.harms for row in table.rows.values()]}
    with patch.object(ResumableLoader, "load_state_dict", skip):
        found["a batch is lost"] = harms(crash, whole)
    with patch.object(Disk, "fsync", lambda disk, original, handle: disk.before()):
        found["no file is synchronised"] = harms(crash, whole)
    with patch("torch.load", trusting), patch("arlm.checkpoints.archive.scan"):
        found["pickles are executed"] = harms(execute, whole)
    found["a command hangs"] = harms(hang, whole)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
