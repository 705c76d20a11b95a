"""Read the archive of a checkpoint: tensors and plain values only, with a verified description."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import torch

from arlm.checkpoints.describe import FORMAT, entry_checksum
from arlm.checkpoints.specs import OLDER
from arlm.errors import UserError

DAMAGED = "use another file, such as last.ckpt of the same run"


@contextmanager
def user_errors(path: str | Path) -> Iterator[None]:
    """Turn any exception that a damaged or crafted file raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"checkpoint: '{path}' cannot be read ({type(error).__name__}); {DAMAGED}"
        ) from None


def read_archive(path: Path) -> dict[str, Any]:
    """The contents of a file, its tensors memory-mapped."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd archives, which are refused in one line
            contents = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # a damaged archive can raise anything
        raise UserError(f"checkpoint: '{path}' is truncated or no checkpoint; {DAMAGED}") from None
    entry = contents.get("arlm") if isinstance(contents, dict) else None
    if not isinstance(entry, dict):
        raise UserError(f"checkpoint: '{path}' was not written by arlm; train with `arlm fit`")
    number = entry.get("format")
    if type(number) is not int or number != FORMAT:  # a tensor equals a number too
        raise UserError(
            f"checkpoint: '{path}' has format {shortened(number)[:40]}, this arlm reads {FORMAT}; "
            f"{OLDER}"
        )
    texts = {name: value for name, value in entry.items() if name != "format"}
    valid = all(isinstance(part, str) for item in texts.items() for part in item)
    valid = valid and {"network", "spec", "config", "run", "weights", "checksum"} <= set(texts)
    if not valid or entry_checksum(entry) != entry["checksum"]:
        raise UserError(f"checkpoint: the description in '{path}' is damaged; {DAMAGED}")
    return contents
