"""Read the archive of a checkpoint: tensors and plain values only, with a verified description."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as shortened
from typing import IO, Any

import torch

from arlm.checkpoints.describe import FORMAT, entry_checksum
from arlm.checkpoints.members import Damaged, Member, content_of, members
from arlm.checkpoints.pickled import LARGEST, check_tensors, scan
from arlm.checkpoints.sharded import META, is_sharded
from arlm.checkpoints.specs import DAMAGED, OLDER
from arlm.errors import UserError

TENSOR = re.compile(r"^[^/]+/data/\d+$")  # the name of a tensor's member


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
    """The contents of a file, its tensors memory-mapped; of a sharded checkpoint, what is no shard.

    Everything but the tensors is verified here: the archive's directory, the CRC-32 of the pickle and of the
    small members, what the pickle would call, and the sizes of tensors. The bytes of the network's weights have
    SHA-256 checksums (`load`), and those of the optimizer's state are tested where it is used (`verify_archive`):
    a CRC-32 of the whole file would cost `load` another 0.4 s/GB for bytes that it does not read.
    """
    file_path = path / META if is_sharded(path) else path
    try:
        with file_path.open("rb") as file:
            size = file.seek(0, 2)
            found = members(file)
            for member in found:
                if not TENSOR.search(member.name):
                    content = _small(file, member)
                    if member.name.lower().endswith("/data.pkl"):  # torch ignores case
                        scan(content, len(found))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd archives, which are refused in one line
            contents = torch.load(file_path, map_location="cpu", weights_only=True, mmap=True)
        check_tensors(contents, size)
    except OSError as error:
        raise UserError(
            f"checkpoint: '{path}' cannot be read ({error.strerror or error}); {DAMAGED}"
        ) from None
    except Damaged as error:
        raise UserError(
            f"checkpoint: '{path}' is truncated or no checkpoint ({error}); {DAMAGED}"
        ) from None
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


def _small(file: IO[bytes], member: Member) -> bytes:
    """The verified content of a member that is no tensor; a large one is refused before it is read."""
    if member.size > LARGEST:
        raise Damaged(f"its member {member.name[:60]} has {member.size} bytes")
    return content_of(file, member)
